"""`anchored fetch` from the command line, against a server on this machine."""

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fetch_cases import sha256, tar_gz

from anchored import file_digests
from anchored.errors import InputError
from anchored.fetch import builders
from anchored.files import file_digest
from anchored.provenance import read_source, write_source

FILES = {"birds/metadata.csv": b"img_filename,y\na.jpg,0\n", "birds/a.jpg": b"\xff\xd8" + bytes(3000)}
ARCHIVE = tar_gz(FILES)
WEIGHTS = bytes(range(256)) * 1000
UNPACK = {"format": "tar.gz", "root": "birds", "at_most": 100_000, "members": 20}


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def dataset(table, url: str, name: str = "birds", **file):
    return table(name, files=[{"name": "birds.tar.gz", "url": url, "seen": "here"} | file], unpack=UNPACK)


def weights(table, url: str, **file):
    return table("net", kind="weights", target="net.pth", files=[{"name": "net.pth", "url": url, "seen": "here"} | file])


# --- what comes ------------------------------------------------------------------------------------------------------------


def test_dataset(web, table, fetch, tmp_path):
    """A folder with the publisher's files, what it is, and how it is read; the archive goes, and a second run does nothing."""
    file = {"name": "birds.tar.gz", "url": web.serve("/birds.tar.gz", ARCHIVE), "seen": "here", "digest": sha256(ARCHIVE)}
    table("birds", title="Birds, the archive", note="Only two.", files=[file | {"size": len(ARCHIVE)}], unpack=UNPACK)
    done = fetch("birds")
    assert done.code == 0, done.err
    assert "data/birds: Birds, the archive, 3 files" in done.out
    assert "birds: {reader: folder}" in done.out
    assert "licence of birds: CC0-1.0" in done.err
    found = tree(tmp_path / "data/birds")
    record = json.loads(found.pop("SOURCE.json"))
    assert found == {name.removeprefix("birds/"): data for name, data in FILES.items()}
    assert record == {
        "schema": 1, "name": "Birds, the archive", "version": "1", "licences": ["CC0-1.0"], "note": "Only two.",
        "files": {"birds.tar.gz": hashlib.sha256(ARCHIVE).hexdigest()},
    }  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [".fetch", ".fetched", "birds"]
    assert [path.name for path in (tmp_path / "data/.fetch").iterdir()] == ["work"]
    web.asked.clear()
    again = fetch("birds")
    assert (again.code, web.asked) == (0, [])
    assert "data/birds is there already; nothing to do." in again.out


@pytest.mark.parametrize("text", [b'{"schema": 1, "name": "X", "version": "1", "licences": []}', b"our notes"])
def test_provenance_is_the_table_s(web, table, fetch, tmp_path, text):
    """An archive that brings a SOURCE.json of its own would put its words under every table, or stop the command."""
    archive = tar_gz(FILES | {"birds/SOURCE.json": text})
    dataset(table, web.serve("/birds.tar.gz", archive), digest=sha256(archive))
    assert fetch("birds").code == 0
    found = read_source(tmp_path / "data/birds")
    assert found is not None
    assert found.files == {"birds.tar.gz": hashlib.sha256(archive).hexdigest()}


def test_a_copy_that_cannot_be_replaced_stays(web, table, fetch, tmp_path, monkeypatch):
    """Between two renames the old copy has no name; it gets it back where the second fails."""
    dataset(table, web.serve("/birds.tar.gz", ARCHIVE), digest=sha256(ARCHIVE))
    fetch("birds")
    before, rename = tree(tmp_path / "data/birds"), os.rename

    def refuse(source, target):
        if Path(source).name == "unpacked":
            raise PermissionError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    assert fetch("birds", "--force").code == 5
    assert tree(tmp_path / "data/birds") == before


def test_weights(web, table, fetch, tmp_path):
    """A file, and its provenance beside it."""
    weights(table, web.serve("/net.pth", WEIGHTS), digest=sha256(WEIGHTS))
    assert fetch("net").code == 0
    assert (tmp_path / "weights/net.pth").read_bytes() == WEIGHTS
    found = read_source(tmp_path / "weights/net.pth")
    assert found is not None
    assert (found.name, found.files) == ("net", {"net.pth": hashlib.sha256(WEIGHTS).hexdigest()})
    assert "nothing to do" in fetch("net").out


def test_weights_that_did_not_change_are_not_read_again(web, table, fetch, tmp_path, monkeypatch):
    """A full checkpoint has 1.4 GB; a change of the same size is noticed all the same."""
    read: list[str] = []
    monkeypatch.setattr(file_digests, "LARGE", 1)
    monkeypatch.setattr(file_digests, "file_digest", lambda path: read.append(path.name) or file_digest(path))
    weights(table, web.serve("/net.pth", WEIGHTS), digest=sha256(WEIGHTS))
    assert [fetch("net").code for _ in range(3)] == [0, 0, 0]
    assert read == ["net.pth"]
    (tmp_path / "weights/net.pth").write_bytes(WEIGHTS[::-1])
    done = fetch("net")
    assert done.code == 3
    assert "its content changed" in done.err


def test_another_place(web, table, fetch, tmp_path):
    """--to names the folder around the result."""
    dataset(table, web.serve("/birds.tar.gz", ARCHIVE))
    assert fetch("birds", "--to", str(tmp_path / "disk2")).code == 0
    assert (tmp_path / "disk2/birds/metadata.csv").exists()
    assert not (tmp_path / "data").exists()


# --- what must not come ----------------------------------------------------------------------------------------------------


def test_wrong_digest(web, table, fetch, tmp_path):
    """Not a byte of it is kept; the message has both digests and the address without secrets."""
    url = web.serve("/birds.tar.gz", ARCHIVE) + "?token=geheim"
    dataset(table, url, digest=sha256(b"another"))
    done = fetch("birds")
    assert done.code == 3
    assert "/birds.tar.gz?... gives another file than the table describes" in done.err
    assert hashlib.sha256(ARCHIVE).hexdigest() in done.err
    assert hashlib.sha256(b"another").hexdigest() in done.err
    assert "geheim" not in done.err + "".join(data.decode("utf-8", "replace") for data in tree(tmp_path).values())
    assert not any("birds.tar" in name for name in tree(tmp_path))


@pytest.mark.parametrize("broken", ["digest", "missing", "forbidden", "page", "dead"])
def test_archive_steps_in(web, table, fetch, tmp_path, broken):
    """Whatever is wrong with the publisher's server, the archive's bytes must have the same digest."""
    answers = {"digest": {"body": b"other"}, "forbidden": {"status": 403}, "page": {"body": b"<html>"}, "dead": {"status": 500}}
    url = web.url("/first") if broken == "missing" else web.serve("/first", **answers[broken])
    dataset(table, url, archive=[web.serve("/second", ARCHIVE)], digest=sha256(ARCHIVE))
    done = fetch("birds")
    assert done.code == 0, done.err
    assert f"trying {web.url('/second')}" in done.err
    assert (tmp_path / "data/birds/a.jpg").exists()
    assert json.loads((tmp_path / "data/.fetched/birds.json").read_text())["files"]["birds.tar.gz"]["origin"] == web.url("/second")


def test_nothing_steps_in(web, table, fetch):
    """All reasons are told."""
    dataset(table, web.serve("/first", b"", status=403), archive=[web.serve("/second", b"<html>")])
    done = fetch("birds")
    assert done.code == 3
    assert "birds.tar.gz cannot be had from any of 2 addresses" in done.err
    assert "refuses access (403" in done.err
    assert "gives a web page" in done.err


def test_archive_first(web, table, fetch):
    """--archive leaves the publisher's server alone; without an archive it is a wrong command."""
    dataset(table, web.serve("/first", ARCHIVE), archive=[web.serve("/second", ARCHIVE)])
    assert fetch("birds", "--archive").code == 0
    assert [request.path for request in web.asked] == ["/second"]
    dataset(table, web.url("/first"), name="cats")
    done = fetch("cats", "--archive")
    assert (done.code, "cats has no archive address" in done.err) == (2, True)


def test_known_first_digits(web, table, fetch):
    """Six digits of an MD5, or eight of a SHA-256 in the name: enough against an accident, and said to be no more."""
    digits = hashlib.md5(WEIGHTS).hexdigest()[:6]
    weights(table, web.serve("/damaged.pth", b"damaged"), digest=f"md5:{digits}")
    done = fetch("net")
    assert done.code == 3
    assert f"its md5 is {hashlib.md5(b'damaged').hexdigest()}, not {digits}..." in done.err
    weights(table, web.serve("/net.pth", WEIGHTS), digest=f"md5:{digits}")
    done = fetch("net")
    assert done.code == 0, done.err
    assert "nobody vouches for it" in done.err
    table("named", kind="weights", target="named.pth",
          files=[{"name": "named-0123abcd.pth", "url": web.url("/net.pth"), "seen": "here"}])  # fmt: skip
    done = fetch("named")
    assert done.code == 3
    assert "not 0123abcd..." in done.err


def test_truncated_archive_leaves_no_folder(web, table, fetch, tmp_path):
    """The download is what the server has, and yet no dataset: no folder with half of the images."""
    dataset(table, web.serve("/birds.tar.gz", ARCHIVE[:-50]))
    done = fetch("birds")
    assert done.code == 3
    assert "is truncated or damaged" in done.err
    assert not (tmp_path / "data/birds").exists()


def test_a_damaged_archive_is_not_trusted(web, table, fetch, tmp_path):
    """Nobody knew its digest, so the first one would be pinned, and the publisher's repaired one be refused for ever."""
    dataset(table, web.serve("/birds.tar.gz", ARCHIVE[:-50]))
    assert fetch("birds").code == 3
    web.serve("/birds.tar.gz", ARCHIVE)
    done = fetch("birds")
    assert done.code == 0, done.err
    assert (tmp_path / "data/birds/a.jpg").exists()


def test_an_archive_that_became_damaged_keeps_its_pin(web, table, fetch, tmp_path, monkeypatch):
    """What was once unpacked stays trusted, whatever goes wrong later."""
    dataset(table, web.serve("/birds.tar.gz", ARCHIVE))
    assert fetch("birds").code == 0
    record = (tmp_path / "data/.fetched/birds.json").read_bytes()

    def refuse(*arguments):
        raise InputError("it is damaged.")

    monkeypatch.setattr("anchored.fetch.step.unpack", refuse)
    assert fetch("birds", "--force").code == 3
    assert (tmp_path / "data/.fetched/birds.json").read_bytes() == record


def test_leavings_of_an_interrupted_run_are_no_part_of_a_dataset(web, table, fetch, tmp_path):
    """A part from the first address, a temporary file of a killed download: a reader of all files of the folder would take them."""
    table("birds", files=[{"name": "a/b.csv", "url": web.serve("/b.csv", b"1"), "seen": "here"}])
    for name in ("a/b.csv.0123abcd.part", "tmp1234", "old.csv"):
        path = tmp_path / "data/.fetch/birds/files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    done = fetch("birds")
    assert done.code == 0, done.err
    assert set(tree(tmp_path / "data/birds")) == {"a/b.csv", "SOURCE.json"}


# --- trust on first use ----------------------------------------------------------------------------------------------------


def test_first_use_pins(web, table, fetch, tmp_path):
    """A file without a published digest is told so loudly, and must be the same from then on, whoever gives it."""
    url = web.serve("/birds.tar.gz", ARCHIVE)
    dataset(table, url)
    done = fetch("birds")
    assert "no digest of birds.tar.gz was known beforehand: nobody vouches for it" in done.err
    digest = hashlib.sha256(ARCHIVE).hexdigest()
    assert digest in done.err
    before = tree(tmp_path / "data/birds")
    web.serve("/birds.tar.gz", tar_gz({"birds/metadata.csv": b"img_filename,y\na.jpg,1\n"}))
    done = fetch("birds", "--force")
    assert done.code == 3
    assert f"gives another file than the first time ({url})" in done.err
    assert digest in done.err
    assert tree(tmp_path / "data/birds") == before
    (tmp_path / "data/.fetched/birds.json").unlink()
    assert fetch("birds", "--force").code == 0
    assert b"a.jpg,1" in (tmp_path / "data/birds/metadata.csv").read_bytes()


def test_pins_outlive_the_folder(web, table, fetch, tmp_path):
    """Removing a dataset does not remove the memory of it."""
    dataset(table, web.serve("/birds.tar.gz", ARCHIVE))
    assert fetch("birds").code == 0
    shutil.rmtree(tmp_path / "data/birds")
    done = fetch("birds")
    assert done.code == 0
    assert "nobody vouches" not in done.err
    shutil.rmtree(tmp_path / "data/birds")
    web.serve("/birds.tar.gz", tar_gz({"birds/evil": b"x"}))
    assert fetch("birds").code == 3


def test_damaged_record(web, table, fetch, tmp_path):
    """Never taken for no record: its pins would silently be gone."""
    dataset(table, web.serve("/birds.tar.gz", ARCHIVE))
    assert fetch("birds").code == 0
    (tmp_path / "data/.fetched/birds.json").write_text("{")
    done = fetch("birds")
    assert (done.code, "birds.json is damaged" in done.err) == (3, True)


# --- what is there already -------------------------------------------------------------------------------------------------


def test_damaged_target_is_told_and_replaced(web, table, fetch, tmp_path):
    """A missing image, or a changed byte of weights: exit code 3, and --force makes it right."""
    dataset(table, web.serve("/birds.tar.gz", ARCHIVE))
    fetch("birds")
    (tmp_path / "data/birds/a.jpg").unlink()
    done = fetch("birds")
    assert done.code == 3
    assert "data/birds is not what was fetched: 2 files" in done.err
    assert "`anchored fetch birds --force`" in done.err
    assert fetch("birds", "--force").code == 0
    assert (tmp_path / "data/birds/a.jpg").read_bytes() == FILES["birds/a.jpg"]
    weights(table, web.serve("/net.pth", WEIGHTS))
    fetch("net")
    (tmp_path / "weights/net.pth").write_bytes(WEIGHTS[::-1])
    done = fetch("net")
    assert (done.code, "its content changed" in done.err) == (3, True)
    assert fetch("net", "--force").code == 0
    assert (tmp_path / "weights/net.pth").read_bytes() == WEIGHTS


@pytest.mark.parametrize("options", [[], ["--force"]])
def test_nothing_of_the_user_is_touched(web, table, fetch, tmp_path, options):
    """A folder or file that fetch did not make stays, also with --force."""
    dataset(table, web.serve("/birds.tar.gz", ARCHIVE), digest=sha256(ARCHIVE))
    mine = tmp_path / "data/birds/metadata.csv"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    weights(table, web.serve("/net.pth", WEIGHTS), digest=sha256(WEIGHTS))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/net.pth").write_text("mine")
    for name in ("birds", "net"):
        done = fetch(name, *options)
        assert done.code == 3
        assert "is there, but `anchored fetch` did not make it" in done.err
    assert mine.read_text() == (tmp_path / "weights/net.pth").read_text() == "mine"
    assert web.asked == []


def test_weights_with_the_known_digest_are_adopted(web, table, fetch, tmp_path):
    """Who has the file need not download it again."""
    weights(table, web.serve("/net.pth", WEIGHTS), digest=sha256(WEIGHTS))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/net.pth").write_bytes(WEIGHTS)
    done = fetch("net")
    assert (done.code, web.asked) == (0, [])
    assert read_source(tmp_path / "weights/net.pth") is not None


def test_killed_after_putting_in_place(web, table, fetch, tmp_path):
    """The folder has its name, the record was not written yet: recognised by its provenance."""
    dataset(table, web.serve("/birds.tar.gz", ARCHIVE))
    fetch("birds")
    record = tmp_path / "data/.fetched/birds.json"
    values = json.loads(record.read_text())
    del values["target"]
    record.write_text(json.dumps(values))
    web.asked.clear()
    assert (fetch("birds").code, web.asked) == (0, [])


def test_weights_without_a_record_are_compared_with_their_provenance(web, table, fetch, tmp_path):
    """Who loses .fetched/ keeps FILE.source.json, which has the digest: a changed file is no fetched one."""
    weights(table, web.serve("/net.pth", WEIGHTS))
    assert fetch("net").code == 0
    (tmp_path / "weights/.fetched/net.json").unlink()
    assert "nothing to do" in fetch("net").out
    (tmp_path / "weights/.fetched/net.json").unlink()
    (tmp_path / "weights/net.pth").write_bytes(WEIGHTS[:-1] + b"?")
    done = fetch("net")
    assert done.code == 3
    assert "is not what was fetched: its content changed" in done.err


# --- by hand ---------------------------------------------------------------------------------------------------------------


def faces(table):
    return table(
        "faces",
        licences=[{"name": "agreement", "url": "http://faces.example/terms"}],
        by_hand={
            "text": "Open http://faces.example and accept.",
            "seen": "here",
            "files": [
                {"what": "images", "any": [{"file": "faces.zip", "digest": "md5:" + hashlib.md5(b"zip").hexdigest()},
                                           {"folder": "faces", "entries": 2}]},
                {"what": "labels", "any": [{"file": "labels.txt"}]},
            ],
        },
    )  # fmt: skip


def test_by_hand_says_what_to_do(table, fetch, tmp_path):
    """Nothing is downloaded: what is missing, where from, where to, and under which licence."""
    faces(table)
    done = fetch("faces")
    assert done.code == 3
    assert f"faces is not complete in {tmp_path}/data/faces: " in done.err
    assert "images (faces.zip or the folder faces/); labels (labels.txt) missing" in done.err
    assert f"Open http://faces.example and accept. Place it in {tmp_path}/data/faces" in done.err
    assert "Licence: agreement (http://faces.example/terms)" in done.err


def test_by_hand_checks_what_was_placed(table, fetch, tmp_path):
    """Digests where they are known, the number of entries of a folder, and sameness from the first check on."""
    faces(table)
    folder = tmp_path / "data/faces"
    folder.mkdir(parents=True)
    (folder / "labels.txt").write_text("labels")
    (folder / "faces.zip").write_bytes(b"half a zip")
    done = fetch("faces")
    assert (done.code, "faces.zip is not the publisher's file: its md5 is" in done.err) == (3, True)
    (folder / "faces.zip").write_bytes(b"zip")
    assert fetch("faces").code == 0
    found = read_source(folder)
    assert found is not None
    assert found.files == {"faces.zip": hashlib.sha256(b"zip").hexdigest(), "labels.txt": hashlib.sha256(b"labels").hexdigest()}
    assert "nothing to do" in fetch("faces").out
    (folder / "labels.txt").write_text("other labels")
    done = fetch("faces")
    assert (done.code, "labels.txt is another file than before" in done.err) == (3, True)


@pytest.mark.parametrize(("names", "code"), [(["1.jpg", "2.jpg", ".DS_Store"], 0), (["1.jpg"], 3)])
def test_by_hand_counts_a_folder(table, fetch, tmp_path, names, code):
    """An unpacked folder is checked by its number of entries."""
    faces(table)
    (tmp_path / "data/faces/faces").mkdir(parents=True)
    (tmp_path / "data/faces/labels.txt").write_text("labels")
    for name in names:
        (tmp_path / "data/faces/faces" / name).touch()
    done = fetch("faces")
    assert done.code == code
    assert ("holds 1 entries, not 2" in done.err) == (code == 3)


# --- built here ------------------------------------------------------------------------------------------------------------


BUILDER = '''
"""A builder."""
from pathlib import Path
def build(target: Path, cache: Path, *, source) -> None:
    assert target.parent.is_dir() and cache.is_dir() and not target.exists()
    (cache / "package.deb").write_text("kept")
    if source.kind == "weights":
        target.write_bytes(b"built")
        target.with_name(target.name + ".source.json").write_text(
            '{"schema": 1, "name": "own", "version": "9", "licences": [], "note": "by the builder", "model": "vit"}')
    else:
        target.mkdir()
        (target / "metadata.csv").write_text("built")
'''


@pytest.mark.parametrize("kind", ["dataset", "weights"])
def test_builder(table, fetch, tmp_path, monkeypatch, kind):
    """A source can be made here; what its builder says of it is kept, else the table's words are used."""
    (tmp_path / "fake_builder.py").write_text(BUILDER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(builders.MODULES, "fake", "fake_builder")
    table("made", kind=kind, builder="fake", target="made" if kind == "dataset" else "made.safetensors")
    folder = tmp_path / ("data" if kind == "dataset" else "weights")
    done = fetch("made")
    assert done.code == 0, done.err
    found = read_source(folder / ("made" if kind == "dataset" else "made.safetensors"))
    assert found is not None
    assert found.name == ("made" if kind == "dataset" else "own")
    assert (folder / ".fetch/packages/package.deb").exists()
    assert "nothing to do" in fetch("made").out
    assert fetch("made", "--force").code == 0
    (folder / ".fetched/made.json").unlink()  # killed after it was put in place, before the record was written
    assert ("nothing to do" in fetch("made").out) == (kind == "dataset")  # the fake's weights are of another version


# --- the command line ------------------------------------------------------------------------------------------------------


def test_unknown_source(table, fetch, tmp_path):
    """Exit code 2, and the nearest name."""
    table("waterbirds", builder="paintbirds")
    done = fetch("waterbird")
    assert done.code == 2
    assert "'waterbird' is no source.\n  did you mean 'waterbirds'? `anchored fetch --list`" in done.err
    assert fetch().code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


def test_list(fetch, tmp_path):
    """All sources, without a file being written."""
    done = fetch("--list")
    assert done.code == 0
    assert "| waterbirds " in done.out
    assert "not tried" in done.out
    one = fetch("--list", "waterbirds").out.splitlines()
    assert (len(one), "| waterbirds " in one[2]) == (3, True)
    assert fetch("--list", "waterbird").code == 2
    assert list(tmp_path.iterdir()) == []


# --- processes -------------------------------------------------------------------------------------------------------------

PROGRAM = """
import sys
from anchored.fetch import sources
table = sources.parse_sources({"net": {"title": "net", "version": "1", "kind": "weights", "target": "net.pth", "reads": "-",
    "licences": [{"name": "CC0-1.0"}], "citation": "-", "files": [{"name": "net.pth", "url": sys.argv[1], "seen": "here"}]}})
sources.load_sources = lambda: table
sys.argv = ["anchored", "fetch", "net"]
from anchored.cli import main
main()
"""


def start(url: str, folder: Path, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, url], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "NO_PROXY": "127.0.0.1"}, **options,
    )  # fmt: skip


def test_full_disk(web, tmp_path):
    """The operating system refuses to let the file grow: exit code 5, the part is kept, and the next run continues behind it."""
    url = web.serve("/net.pth", WEIGHTS)
    done = start(url, tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)))
    _, err = done.communicate(timeout=60)
    assert done.returncode == 5, err
    assert "file too large; 100.0 kB of net.pth have come" in err
    assert "it continues there" in err
    assert not (tmp_path / "weights/net.pth").exists()
    web.asked.clear()
    done = start(url, tmp_path)
    done.communicate(timeout=60)
    assert done.returncode == 0
    assert (tmp_path / "weights/net.pth").read_bytes() == WEIGHTS
    assert [request.first for request in web.asked] == [100_000]


def test_killed_process_continues(web, tmp_path):
    """kill -9 in the middle: the next run asks for the rest only."""
    url = web.serve("/net.pth", WEIGHTS, chunked=True, endless=True)
    running = start(url, tmp_path)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 10_000 for path in tmp_path.rglob("*.part")):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.communicate(timeout=60)
    part = next(tmp_path.rglob("*.part"))
    with part.open("r+b") as stream:
        stream.truncate(10_000)  # the server repeats the file without end: the first bytes are the file's
    web.serve("/net.pth", WEIGHTS)
    web.asked.clear()
    done = start(url, tmp_path)
    _, err = done.communicate(timeout=60)
    assert done.returncode == 0, err
    assert (tmp_path / "weights/net.pth").read_bytes() == WEIGHTS
    assert [request.first for request in web.asked] == [10_000]


def test_two_processes(web, tmp_path):
    """One downloads, the other says who does; nothing is downloaded twice."""
    import threading

    gate = threading.Event()
    url = web.serve("/net.pth", WEIGHTS, wait=gate)
    first = start(url, tmp_path)
    assert web.pages["/net.pth"].reached.wait(60)
    second = start(url, tmp_path)
    _, err = second.communicate(timeout=60)
    assert second.returncode == 5
    assert "another process is running fetch net" in err
    gate.set()
    _, err = first.communicate(timeout=60)
    assert first.returncode == 0, err
    assert len(web.asked) == 1


def test_provenance_of_a_folder_without_list(tmp_path):
    """Every file of the folder by digest; hidden ones and earlier provenance apart."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b.txt").write_text("b")
    (tmp_path / ".hidden").write_text("x")
    for _ in range(2):
        write_source(tmp_path, name="n", version="1", licences=["CC0-1.0"], note="made here")
        found = read_source(tmp_path)
        assert found is not None
        assert found.files == {"a/b.txt": hashlib.sha256(b"b").hexdigest()}
        assert (found.name, found.licences, found.note) == ("n", ("CC0-1.0",), "made here")
