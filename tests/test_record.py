"""The frame of a step: nothing to do where nothing changed, everything again where one byte did."""

import json
import logging
import os
import subprocess
import sys

import pytest

from anchored import file_digests, record
from anchored.errors import AnchoredError, EnvironmentFailure, InputError
from anchored.files import file_digest, value_digest, write_text
from anchored.paths import Paths
from anchored.preparation import step as preparation_step
from anchored.preparation.step import prepare
from anchored.record import Step, path_digest


@pytest.fixture
def paths(tmp_path) -> Paths:
    (tmp_path / "study").mkdir()
    write_text(tmp_path / "study/results/input.txt", "input")
    return Paths(tmp_path / "study")


def toy(paths: Paths, *, entry: object = "entry", name: str = "toy") -> Step:
    """A step that reads one file and writes a file and a folder."""
    folder = paths.results / name
    inputs = {paths.results / "input.txt": "anchored make-input"}
    return Step("prepare", name, entry, paths, inputs, [folder / "out.txt", folder / "more"], folder / "record.json")


def execute(step: Step) -> bool:
    """Runs the toy step; whether it computed."""
    with step.run() as running:
        if running:
            write_text(step.outputs[0], "output")
            write_text(step.outputs[1] / "a/b.txt", "member")
            running.measure(answer=42)
    return running is not None


def test_second_run_computes_nothing(paths):
    """Launching twice launches nothing."""
    assert execute(toy(paths))
    stamps = {path: path.stat().st_mtime_ns for path in (paths.results / "toy").rglob("*")}
    assert not execute(toy(paths))
    assert {path: path.stat().st_mtime_ns for path in (paths.results / "toy").rglob("*")} == stamps


def test_what_killed_processes_left_on_their_way_is_swept(paths):
    """Half a model of gigabytes would lie there for ever; files of others stay."""
    names = (".out.txt.4711.tmp", ".more.4711.old/a", ".record.json.1.tmp", ".other.1.tmp")
    left = [paths.results / "toy" / name for name in names]
    for path in left:
        write_text(path, "half")
    assert execute(toy(paths))
    assert [path.exists() for path in left] == [False, False, False, True]


def _append(name):
    return lambda paths, _: (paths.results / name).write_text((paths.results / name).read_text() + "!")


def _delete(name):
    return lambda paths, _: (paths.results / name).unlink()


CHANGES = {
    "input": _append("input.txt"),
    "output": _append("toy/out.txt"),
    "member of an output folder": _append("toy/more/a/b.txt"),
    "new member of an output folder": lambda paths, _: (paths.results / "toy/more/c.txt").write_text(""),
    "output gone": _delete("toy/out.txt"),
    "folder member gone": _delete("toy/more/a/b.txt"),
    "record gone": _delete("toy/record.json"),
    "record cut short": lambda paths, _: (paths.results / "toy/record.json").write_text("{"),
    "record of another kind": lambda paths, _: (paths.results / "toy/record.json").write_text("[]"),
    "record without outputs": lambda paths, _: (paths.results / "toy/record.json").write_text("{}"),
    "code": lambda _, patch: patch.setattr(record, "code_digest", lambda step: "other"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_runs_it_again(paths, change, monkeypatch):
    """Time stamps lie after a checkout or a copy; contents do not. After the second run all is up to date again."""
    execute(toy(paths))
    CHANGES[change](paths, monkeypatch)
    assert execute(toy(paths))
    assert not execute(toy(paths))


def test_changed_entry_runs_it_again(paths):
    """The plan entry is an input like any other; the order of its keys is not part of it."""
    assert execute(toy(paths, entry={"lr": 1, "seed": 2}))
    assert not execute(toy(paths, entry={"seed": 2, "lr": 1}))
    assert execute(toy(paths, entry={"lr": 1, "seed": 3}))


def test_touched_files_are_not_changed_files(paths):
    """`git checkout` and `cp` move time stamps of everything."""
    execute(toy(paths))
    for path in paths.results.rglob("*"):
        os.utime(path, (1, 1))
    assert not execute(toy(paths))


def test_moved_folder_is_up_to_date(paths, tmp_path):
    """Identities are relative: results computed on a cluster are valid on a laptop."""
    execute(toy(paths))
    paths.root.rename(tmp_path / "elsewhere")
    assert not execute(toy(Paths(tmp_path / "elsewhere")))


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Names of the files that are read for a digest, in a study where every file counts as large."""
    read: list[str] = []
    monkeypatch.setattr(file_digests, "LARGE", 1)
    monkeypatch.setattr(file_digests, "file_digest", lambda path: read.append(path.name) or file_digest(path))
    return read


def test_what_did_not_change_is_not_read_again(paths, reads):
    """The store of CelebA has 30 GB: to know that there is nothing to do must not take minutes."""
    execute(toy(paths))
    assert sorted(reads) == ["b.txt", "input.txt", "out.txt"]
    assert not execute(toy(paths))
    assert sorted(reads) == ["b.txt", "input.txt", "out.txt"]
    (paths.root / "work/digests/prepare-toy.json").write_text('{"results/input.txt": 3}')
    assert not execute(toy(paths))
    assert len(reads) == 6, "without its memory a command reads everything, once"


def _same_stamp(paths, name):
    """Other bytes of the same length with the old time of change, as an archive is unpacked."""
    path = paths.results / name
    before = path.stat()
    path.write_text(path.read_text().swapcase())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("name", ["toy/out.txt", "toy/more/a/b.txt", "input.txt"])
def test_a_change_of_the_same_length_and_time_is_noticed(paths, reads, name):
    """Size and time of change alone are what any tool restores."""
    execute(toy(paths))
    _same_stamp(paths, name)
    assert execute(toy(paths))


def test_a_touched_file_is_read_once_more(paths, reads):
    """Snakemake touches outputs, DVC links them: the bytes decide, and are remembered under the new stamp."""
    execute(toy(paths))
    os.utime(paths.results / "toy/out.txt", (1, 1))
    del reads[:]
    assert not execute(toy(paths))
    assert not execute(toy(paths))
    assert reads == ["out.txt"]


def test_small_files_are_read_every_time(paths):
    """Two changes within a tick of the clock have one stamp; reading a small file takes less than that."""
    execute(toy(paths))
    assert not (paths.root / "work/digests").exists()


def _fail_half_way(step: Step) -> None:
    with step.run():
        write_text(step.outputs[0], "half")
        raise ZeroDivisionError


def test_failed_run_leaves_no_record(paths):
    """A record left over from before would vouch for outputs that are half of each."""
    execute(toy(paths))
    (paths.results / "input.txt").write_text("changed")
    with pytest.raises(ZeroDivisionError):
        _fail_half_way(toy(paths))
    assert not (paths.results / "toy/record.json").exists()
    assert execute(toy(paths))


def test_a_step_that_changes_nothing_keeps_its_record(paths):
    """Sources are removed when the disk is full: the store made of them is still what its record says, and of use."""
    execute(toy(paths))
    before = (paths.results / "toy/record.json").read_bytes()
    (paths.results / "input.txt").write_text("changed")
    with pytest.raises(FileNotFoundError), toy(paths).run():
        (paths.results / "toy/record.json").read_text()
    assert (paths.results / "toy/record.json").read_bytes() == before
    assert not toy(paths).is_up_to_date()


def test_force_computes(paths):
    """For timing, and for those who trust nobody."""
    execute(toy(paths))
    with toy(paths).run(force=True) as running:
        assert running is not None


def test_record_says_where_the_result_comes_from(paths):
    """Provenance: entry, digests of inputs and outputs, code, libraries, device, time and memory."""
    execute(toy(paths))
    found = json.loads((paths.results / "toy/record.json").read_text())
    assert found["inputs"] == {"results/input.txt": file_digest(paths.results / "input.txt")}
    assert found["outputs"] == {
        "results/toy/out.txt": file_digest(paths.results / "toy/out.txt"),
        "results/toy/more": value_digest({"a/b.txt": file_digest(paths.results / "toy/more/a/b.txt")}),
    }
    assert (found["step"], found["name"], found["entry"]) == ("prepare", "toy", "entry")
    assert found["measurements"] == {"answer": 42}
    assert {"torch", "numpy", "python", "timm"} <= found["libraries"].keys()
    assert found["code"]["digest"] == record.code_digest("prepare")
    assert found["wall_seconds"] >= 0
    assert found["peak_memory_mib"]["host"] > 10
    assert found["started"].endswith("+00:00")


def test_records_hold_relative_paths_only(mini):
    """A path of one machine in a record would make it foreign on the next."""
    for path in mini.results.rglob("record.json"):
        text = path.read_text()
        assert str(mini.root) not in text
        found = json.loads(text)
        assert all(not name.startswith(("/", "..")) for name in (*found["inputs"], *found["outputs"])), path
        assert set(found["outputs"]) <= {file.relative_to(mini.root).as_posix() for file in path.parent.iterdir()}


def test_folder_digest_is_that_of_names_and_contents(tmp_path):
    """A renamed figure is another result."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x/a.txt").write_text("1")
    first = path_digest(tmp_path / "x")
    (tmp_path / "x/a.txt").rename(tmp_path / "x/b.txt")
    assert path_digest(tmp_path / "x") != first
    (tmp_path / "x/b.txt").rename(tmp_path / "x/a.txt")
    assert path_digest(tmp_path / "x") == first


def test_missing_input_names_the_command(paths):
    """Exit code 3, and the next command to type."""
    (paths.results / "input.txt").unlink()
    with pytest.raises(InputError, match=r"prepare toy needs 1 files, 1 of them missing: .*input\.txt") as caught, toy(paths).run():
        pass
    assert "run `anchored make-input`" in caught.value.hint
    assert not (paths.results / "toy").exists()


def hold_lock(paths: Paths, name: str) -> subprocess.Popen:
    """A second process that runs the same step, as far as anybody can tell."""
    lock = paths.work("locks") / name
    code = (
        "import sys, filelock, pathlib; path = pathlib.Path(sys.argv[1]); path.parent.mkdir(parents=True, exist_ok=True)\n"
        "with filelock.FileLock(path): print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_second_process_is_turned_away(paths):
    """Two writers of one result give a mixture of both; the lock dies with its process, however that ends."""
    other = hold_lock(paths, "prepare-toy.lock")
    try:
        with pytest.raises(EnvironmentFailure, match="another process is running prepare toy in") as caught:
            execute(toy(paths))
        assert caught.value.exit_code == 5
        assert execute(toy(paths, name="other")), "another step must not wait"
    finally:
        other.kill()
        other.wait()
    assert execute(toy(paths))


def test_error_inside_a_step_is_not_the_lock_s(paths):
    """A full disk inside a step was once reported as a failure to write work/locks/."""
    with pytest.raises(OSError, match="No space left") as caught, toy(paths).run():
        raise OSError(28, "No space left on device")
    assert not isinstance(caught.value, AnchoredError)


def test_a_store_is_hashed_once(mini_copy, mini_plan, reads):
    """Its manifest and its record hold the same digest."""
    prepare(mini_plan, "scenes", mini_copy, force=True)
    assert reads.count("images.npy") == 1
    prepare(mini_plan, "scenes", mini_copy)
    assert reads.count("images.npy") == 1


def test_prepare_says_nothing_to_do(mini_copy, mini_plan, monkeypatch, caplog):
    """The same through a real step: nothing is built, and the user is told."""
    logger = logging.getLogger("anchored")
    monkeypatch.setattr(logger, "propagate", True)
    logger.setLevel("INFO")
    monkeypatch.setattr(preparation_step, "build", lambda *_: pytest.fail("built although up to date"))
    prepare(mini_plan, "scenes", mini_copy)
    assert "prepare scenes: nothing to do" in caplog.text
