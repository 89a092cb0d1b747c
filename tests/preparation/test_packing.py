"""A store of decoded files: interrupted and continued, it has the bytes of one that was not."""

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from encoded_cases import SIZE, InMemory, decoded, png
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anchored.data.store import open_store
from anchored.errors import EnvironmentFailure, InputError
from anchored.paths import Paths
from anchored.plan.config import Config
from anchored.plan.expand import expand
from anchored.plan.preprocessing import transform
from anchored.preparation import packing, writing
from anchored.preparation.step import prepare
from anchored.preparation.writing import write_store
from anchored.readers import decode, preprocess
from anchored.readers.decode import Decoded

FILES = [png(number) for number in range(60)]
STORAGES = ["raw", "zstd"]


def index(count: int) -> pl.DataFrame:
    return pl.DataFrame({"row": np.arange(count, dtype=np.int32)})


def write(folder: Path, images: Decoded, storage: str = "raw", work: Path | None = None) -> dict[str, bytes]:
    """Packs `images` and returns the files of the store."""
    write_store(folder, {"image": images}, index(len(images)), {}, work=work, storage=storage)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def whole(tmp_path: Path):
    """The files of a store packed in one go."""
    return {storage: write(tmp_path / f"whole-{storage}", decoded(FILES), storage) for storage in STORAGES}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The encoded bytes of the images that were decoded."""
    seen: list[bytes] = []

    def decode_and_count(data: bytes):
        seen.append(data)
        return preprocess.decode(data)

    monkeypatch.setattr(decode, "decode", decode_and_count)
    return seen


class Stops(InMemory):
    """Images whose reading fails at one of them in a way that no reader expects."""

    def __init__(self, files, at: int, error: BaseException) -> None:
        super().__init__(files)
        self._at, self._error = at, error

    def read(self, number: int) -> bytes:
        if number == self._at:
            raise self._error
        return super().read(number)


def interrupted(files, at, error, **options) -> Decoded:
    return Decoded(Stops(files, at, error), SIZE, transform("group-dro", "scenes", SIZE), **options)


@pytest.mark.parametrize("storage", STORAGES)
def test_the_store_holds_what_was_decoded(whole, tmp_path, storage):
    """Same pixels in both kinds; one declared file name, an array of numpy's format in both."""
    store = open_store(tmp_path / f"whole-{storage}")
    expected = np.stack(list(decoded(FILES)))
    assert np.array_equal(store.layer("image")[:], expected)
    rows = np.array([3, 59, 3, 0])
    assert np.array_equal(store.layer("image")[rows], expected[rows])
    assert store.layer("image").shape == store.packed.shape == expected.shape
    array = np.load(tmp_path / f"whole-{storage}/images.npy")
    assert array.dtype == np.uint8
    assert array.ndim == (4 if storage == "raw" else 1)
    assert sorted(whole[storage]) == ["images.npy", "index.parquet", "manifest.json"]


def test_raw_bytes_are_those_of_an_array(whole, tmp_path):
    """Decoded or computed, the same pixels are the same file."""
    write_store(tmp_path / "array", {"image": np.stack(list(decoded(FILES)))}, index(60), {})
    assert (tmp_path / "array/images.npy").read_bytes() == whole["raw"]["images.npy"]


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("at", [0, 1, 31, 59])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()], ids=lambda error: type(error).__name__)
def test_an_interrupted_run_goes_on(whole, tmp_path, counted, storage, at, error):
    """Only what is missing is decoded, and every file has the bytes of an uninterrupted run."""
    work = tmp_path / "work"
    with pytest.raises(type(error)):
        write(tmp_path / "birds", interrupted(FILES, at, error, workers=1), storage, work)
    assert list((tmp_path / "birds").iterdir()) == []
    counted.clear()
    assert write(tmp_path / "birds", decoded(FILES), storage, work) == whole[storage]
    assert sorted(counted) == sorted(FILES[at:])
    assert not work.exists()


KILLED = """
import os, signal, sys
sys.path[:0] = {path!r}
from pathlib import Path
from test_packing import FILES, Stops, write
from anchored.preparation import packing
from anchored.readers.decode import Decoded
from anchored.plan.preprocessing import transform

class Kills(Stops):
    def read(self, number):
        if number == 50:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.files[number]

packing._BLOCK = 8
write(Path({folder!r}), Decoded(Kills(FILES, -1, None), 12, transform("group-dro", "scenes", 12), workers=1), {storage!r},
      Path({work!r}))
"""


@pytest.mark.parametrize("storage", STORAGES)
def test_a_killed_run_goes_on(whole, tmp_path, counted, storage):
    """SIGKILL runs no handler: what is lost is the last block, never the order of things."""
    work = tmp_path / "work"
    text = KILLED.format(path=[path for path in sys.path if path], folder=str(tmp_path / "birds"), storage=storage, work=str(work))
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -9, done.stderr
    assert (tmp_path / "birds").exists()
    counted.clear()
    assert write(tmp_path / "birds", decoded(FILES), storage, work) == whole[storage]
    # The last whole block ended at image 40, or at 48 where the writer was fast: up to four images are in the making.
    assert sorted(counted) in (sorted(FILES[40:]), sorted(FILES[48:]))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), storage=st.sampled_from(STORAGES))
def test_damaged_remains_are_not_trusted(whole, tmp_path_factory, data, storage):
    """A power cut can leave either file shorter than it was, half a line, or somebody else's journal."""
    folder = tmp_path_factory.mktemp("remains")
    work = folder / "work"
    with pytest.raises(KeyboardInterrupt):
        write(folder / "birds", interrupted(FILES, 41, KeyboardInterrupt(), workers=1), storage, work)
    name = data.draw(st.sampled_from(["journal", "images.npy"]))
    remains = (work / name).read_bytes()
    kept = data.draw(st.integers(0, len(remains)))
    (work / name).write_bytes(remains[:kept] + data.draw(st.binary(max_size=5)) if name == "journal" else remains[:kept])
    assert write(folder / "birds", decoded(FILES), storage, work) == whole[storage]


@pytest.mark.parametrize("storage", STORAGES)
def test_changed_files_are_decoded_again(tmp_path, counted, storage):
    """A corrected table, a replaced image: what is the same up to there is kept, all behind it is not."""
    work = tmp_path / "work"
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "birds", interrupted(FILES, 50, KeyboardInterrupt(), workers=1), storage, work)
    changed = [*FILES[:20], png(99), *FILES[21:55]]
    counted.clear()
    found = write(tmp_path / "birds", decoded(changed), storage, work)
    assert sorted(counted) == sorted(changed[20:])
    assert found == write(tmp_path / "other", decoded(changed), storage)


class Counts(InMemory):
    """Images that note which of them were read."""

    def __init__(self, files) -> None:
        super().__init__(files)
        self.read_numbers: list[int] = []

    def read(self, number: int) -> bytes:
        self.read_numbers.append(number)
        return super().read(number)


@pytest.mark.parametrize("storage", STORAGES)
def test_files_whose_digests_are_known_are_not_read_again(whole, tmp_path, storage):
    """`prepare` has just read all of them for the index: of ImageNet another pass would be 140 GB."""
    work, steps = tmp_path / "work", transform("group-dro", "scenes", SIZE)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "birds", interrupted(FILES, 40, KeyboardInterrupt(), workers=1), storage, work)
    images = Decoded(Counts(FILES), SIZE, steps)
    known = index(60).with_columns(sha256=pl.Series([hashlib.sha256(data).hexdigest() for data in FILES]))
    write_store(tmp_path / "birds", {"image": images}, known, {}, work=work, storage=storage)
    assert sorted(images.encoded.read_numbers) == list(range(40, 60))
    assert (tmp_path / "birds/images.npy").read_bytes() == whole[storage]["images.npy"]


@pytest.mark.parametrize("layer", [decoded(FILES[:5]), np.stack(list(decoded(FILES[:5])))], ids=["files", "array"])
def test_old_facts_do_not_outlive_old_images(tmp_path, monkeypatch, layer):
    """Large stores are not hashed on opening: an old manifest beside new images of the same shape would vouch for them."""
    write(tmp_path / "birds", decoded(FILES[5:10]))
    monkeypatch.setattr(writing, "write_parquet", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_store(tmp_path / "birds", {"image": layer}, index(5), {})
    with pytest.raises(InputError, match=r"manifest.json is missing"):
        open_store(tmp_path / "birds")


def test_a_store_stays_where_its_successor_fails(tmp_path):
    """A damaged image in a new version is no reason to lose the old one."""
    before = write(tmp_path / "birds", decoded(FILES[5:10]))
    with pytest.raises(InputError, match="1 images are missing or cannot be read"):
        write_store(tmp_path / "birds", {"image": decoded([*FILES[:4], b"no image"])}, index(5), {})
    assert {path.name: path.read_bytes() for path in (tmp_path / "birds").iterdir()} == before


def test_another_recipe_discards_what_is_done(tmp_path, counted):
    """Squares of another convention, or in another form, have the same sources and other bytes."""
    work = tmp_path / "work"
    recipes = [
        (transform("group-dro", "scenes", SIZE), "raw"), (transform("short-side", "scenes", SIZE), "raw"),
        (transform("short-side", "scenes", SIZE), "zstd"),
    ]  # fmt: skip
    for number, (steps, storage) in enumerate(recipes):
        counted.clear()
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "birds", Decoded(Stops(FILES, 50, KeyboardInterrupt()), SIZE, steps, workers=1), storage, work)
        assert counted[:50] == FILES[:50], recipes[number]


def test_replaced_images_go_on_from_the_first_bad_one(whole, tmp_path, counted):
    """All bad images are named at once; after they are replaced, the good ones before them are not decoded again."""
    work = tmp_path / "work"
    bad = [*FILES[:30], b"no image", *FILES[31:45], None, *FILES[46:]]
    with pytest.raises(InputError, match=r"2 images are missing or cannot be read: 30.png \(no image\), 45.png"):
        write(tmp_path / "birds", decoded(bad), "raw", work)
    assert list((tmp_path / "birds").iterdir()) == []
    counted.clear()
    assert write(tmp_path / "birds", decoded(FILES), "raw", work) == whole["raw"]
    assert sorted(counted) == sorted(FILES[30:])


def test_digests_reach_the_index_also_of_what_was_resumed(whole, tmp_path):
    """Where an image came from must be known of all of them, not of the last sitting's."""
    work = tmp_path / "work"
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "birds", interrupted(FILES, 30, KeyboardInterrupt()), "raw", work)
    images = decoded(FILES)
    write(tmp_path / "birds", images, "raw", work)
    expected = list(decoded(FILES).encoded.files)
    assert open_store(tmp_path / "birds").index["sha256"].to_list() == images.digests
    assert len(set(images.digests)) == len(expected)


def test_files_that_change_meanwhile_are_named(tmp_path):
    """A table of sources with digests of files that were not read would vouch for what nobody has."""
    known = index(60).with_columns(sha256=pl.Series(["0" * 64] * 60))
    with pytest.raises(InputError, match=r"60 images changed while they were read: 0\.png, 1\.png, 2\.png"):
        write_store(tmp_path / "birds", {"image": decoded(FILES)}, known, {})
    assert list((tmp_path / "birds").iterdir()) == []


@pytest.fixture
def bank(tmp_path):
    """A folder of images, and the plan of two banks made of it."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number:02d}.png").write_bytes(FILES[number])
    common = {"reader": "images", "folder": "photographs", "size": SIZE}
    datasets = {"plain": common, "small": {**common, "storage": "zstd"}}
    config = {"name": "banks", "datasets": datasets, "backbones": {}, "experiments": {}}
    return expand(Config.model_validate(config)), Paths(tmp_path), folder


def test_the_plan_names_the_storage(bank):
    """From the configuration to the file; whoever reads the store finds the same images in it."""
    plan, paths, _ = bank
    for name in plan["datasets"]:
        prepare(plan, name, paths)
    plain, small = (open_store(paths.data(name)) for name in plan["datasets"])
    assert small.manifest["storage"]["kind"] == "zstd"
    assert "storage" not in plain.manifest
    assert isinstance(plain.packed, np.memmap)
    assert not isinstance(small.packed, np.ndarray)
    assert np.array_equal(small.layer("image")[:], plain.layer("image"))
    differing = {"storage", "digests"}
    assert {key: value for key, value in small.manifest.items() if key not in differing} == {
        key: value for key, value in plain.manifest.items() if key not in differing
    }


def test_the_step_resumes_and_forced_does_not(bank, counted):
    """Through the command: a bad image stops it, a good one in its place continues it, `--force` begins again."""
    plan, paths, folder = bank
    good = (folder / "08.png").read_bytes()
    for force, expected in ((False, 4), (True, 12)):
        (folder / "08.png").write_bytes(b"no image")
        with pytest.raises(InputError, match=r"08\.png"):
            prepare(plan, "plain", paths, force=True)
        counted.clear()
        (folder / "08.png").write_bytes(good)
        prepare(plan, "plain", paths, force=force)
        assert len(counted) == expected
        assert not paths.work("prepare-plain").exists()


LIMITED = """
import resource, sys
sys.path[:0] = {path!r}
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
from pathlib import Path
from encoded_cases import decoded
from test_packing import FILES, write
from anchored.errors import EnvironmentFailure
try:
    write(Path({folder!r}), decoded(FILES), {storage!r}, Path({work!r}))
except EnvironmentFailure as error:
    print(error)
    raise SystemExit(error.exit_code)
"""


@pytest.mark.parametrize("storage", STORAGES)
def test_a_full_disk_keeps_what_is_done(whole, tmp_path, storage):
    """The system refuses to let files grow: exit code 5, no half store, and the next run goes on."""
    work = tmp_path / "work"
    text = LIMITED.format(path=[path for path in sys.path if path], folder=str(tmp_path / "birds"), storage=storage, work=str(work))
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 5, done.stderr
    assert "images.npy: file too large." in done.stdout
    assert "it goes on where it stopped" in done.stdout
    assert list((tmp_path / "birds").iterdir()) == []
    assert write(tmp_path / "birds", decoded(FILES), storage, work) == whole[storage]


def test_a_disk_that_is_too_small_is_refused_before_the_work(tmp_path, monkeypatch, counted):
    """Hours of decoding that cannot end well."""
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda _: packing.shutil._ntuple_diskusage(10, 9, 1000))
    with pytest.raises(EnvironmentFailure, match=r"60 images of 12 x 12 pixels need 0.0 GB more, .* has 0.0 GB"):
        write(tmp_path / "birds", decoded(FILES), "raw", tmp_path / "work")
    assert counted == []


def test_work_may_lie_on_another_disk(whole, tmp_path, monkeypatch):
    """work/ is often a link to local scratch: renaming does not reach from there."""

    def rename(source, target):
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        real(source, target)

    real = os.replace
    monkeypatch.setattr(os, "replace", rename)
    assert write(tmp_path / "birds", decoded(FILES), "raw", tmp_path / "work") == whole["raw"]
    assert not (tmp_path / "work").exists()


MEMORY = """
import resource, sys
sys.path[:0] = {path!r}
from pathlib import Path
from encoded_cases import InMemory, decoded, png
from test_packing import FILES, index, write, write_store
from anchored.readers.decode import Decoded
from anchored.plan.preprocessing import transform

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

folder = Path({folder!r})
write(folder / "warm", decoded(FILES))
before = peak()
images = Decoded(InMemory([png(1)] * 1500), 256, transform("short-side", "scenes", 256), workers=2)
write_store(folder / "large", {{"image": images}}, index(1500), {{}}, work=folder / "work")
print(peak() - before, (folder / "large/images.npy").stat().st_size >> 20)
"""


def test_memory_is_bounded(tmp_path):
    """Of 281 MiB of squares a few are held at a time: thirty gigabytes take no more memory."""
    text = MEMORY.format(path=[path for path in sys.path if path], folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=300, check=True)
    grown, size = map(int, done.stdout.split())
    assert size == 281
    assert grown < 60
