"""Sources on the Hugging Face hub, against a small hub on this machine."""

import hashlib
import json

import pytest
from fetch_cases import sha256

from anchored.provenance import read_source

OLD, NEW = "a" * 40, "b" * 40
FILES = {"data/train-0.parquet": b"train" * 9000, "data/test-0.parquet": b"test" * 100, "README.md": b"read me"}


@pytest.fixture
def hub(web, monkeypatch, tmp_path):
    """hub(files, commit=...) makes the hub serve a dataset `own/birds`, whose newest commit this is."""
    monkeypatch.setenv("HF_ENDPOINT", web.url(""))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))

    def serve(files=FILES, *, commit=NEW, lies=False, **settings):
        siblings = [
            {"rfilename": name, "size": len(data), "blobId": "x", "lfs": {
                "sha256": hashlib.sha256(b"lie" if lies else data).hexdigest(), "size": len(data), "pointerSize": 130}}
            for name, data in files.items()
        ]  # fmt: skip
        info = json.dumps({"_id": "1", "id": "own/birds", "sha": commit, "siblings": siblings, "tags": []}).encode()
        for revision in (commit, "main"):
            web.serve(f"/api/datasets/own/birds/revision/{revision}", info, headers={"Content-Type": "application/json"})
        for name, data in files.items():
            digest = hashlib.sha256(data).hexdigest()
            headers = {"X-Repo-Commit": commit, "X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
            web.serve(f"/datasets/own/birds/resolve/{commit}/{name}", data, headers=headers, **settings)

    return serve


def source(table, **hub):
    return table("birds", hub={"repo": "own/birds", "type": "dataset", "files": ["data/*.parquet"], "seen": "here"} | hub)


def test_files_of_a_repository(web, hub, table, fetch, tmp_path):
    """The wanted files, at the newest commit, which is pinned: a later push to the repository changes nothing."""
    hub()
    source(table)
    done = fetch("birds")
    assert done.code == 0, done.err
    folder = tmp_path / "data/birds"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {"SOURCE.json", "data/train-0.parquet", "data/test-0.parquet"}
    assert (folder / "data/train-0.parquet").read_bytes() == FILES["data/train-0.parquet"]
    provenance = read_source(folder)
    assert provenance is not None
    assert provenance.files["data/test-0.parquet"] == hashlib.sha256(FILES["data/test-0.parquet"]).hexdigest()
    assert json.loads((tmp_path / "data/.fetched/birds.json").read_text())["revision"] == NEW
    assert "nobody vouches for it" in done.err
    web.asked.clear()
    assert (fetch("birds").code, web.asked) == (0, [])
    assert fetch("birds", "--force").code == 0
    assert not any("main" in request.path for request in web.asked)


def test_pinned_commit_and_digest(web, hub, table, fetch):
    """The table's commit is asked for, the table's digest compared."""
    hub(commit=OLD)
    digests = {name: sha256(data) for name, data in FILES.items()}
    source(table, revision=OLD, digests=digests)
    done = fetch("birds")
    assert done.code == 0, done.err
    assert "nobody vouches" not in done.err
    assert not any("main" in request.path for request in web.asked)
    source(table, revision=OLD, digests=digests | {"data/test-0.parquet": sha256(b"other")})
    done = fetch("birds", "--force")
    assert done.code == 3
    assert f"/datasets/own/birds/blob/{OLD}/data/test-0.parquet gives another file than the table describes" in done.err


def test_hub_that_gives_other_bytes_than_it_announces(hub, table, fetch, tmp_path):
    """The hub knows the SHA-256 of large files; what came is compared with it."""
    hub(lies=True)
    source(table)
    done = fetch("birds")
    assert (done.code, "gives another file" in done.err) == (3, True)
    assert not (tmp_path / "data/birds").exists()


def test_commit_that_changed(hub, table, fetch):
    """A rewritten repository under the same commit: what came first must come again."""
    hub()
    source(table)
    assert fetch("birds").code == 0
    hub(FILES | {"data/test-0.parquet": b"TEST" * 100})
    done = fetch("birds", "--force")
    assert (done.code, "gives another file than the first time" in done.err) == (3, True)


def test_token_of_the_environment_only(web, hub, table, fetch, tmp_path, monkeypatch):
    """HF_TOKEN is sent to the hub and written nowhere; a token that another program stored is not sent."""
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/token").write_text("hf_stored")
    hub()
    source(table)
    assert fetch("birds").code == 0
    assert not any("Authorization" in request.headers for request in web.asked)
    monkeypatch.setenv("HF_TOKEN", "hf_geheim")
    web.asked.clear()
    done = fetch("birds", "--force")
    assert done.code == 0
    assert any(request.headers["Authorization"] == "Bearer hf_geheim" for request in web.asked)
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"hf_geheim" in text for text in texts)
    assert "geheim" not in done.out + done.err


@pytest.mark.parametrize(("code", "status", "header", "sentence"), [
    (3, 403, {"X-Error-Code": "GatedRepo"}, "own/birds asks for an accepted licence"),
    (3, 401, {}, "the hub refuses access (401)"),
    (3, 404, {"X-Error-Code": "RepoNotFound"}, "own/birds is not on the hub, or not for everybody"),
    (3, 404, {"X-Error-Code": "RevisionNotFound"}, "own/birds has no commit"),
    (3, 403, {}, "the hub refuses access (403)"),
    (5, 500, {}, "the hub answers 500"),
])  # fmt: skip
def test_refusals(web, hub, table, fetch, code, status, header, sentence):
    """In the user's words, with what to do."""
    web.serve("/api/datasets/own/birds/revision/main", b"{}", status=status, headers=header)
    source(table)
    done = fetch("birds")
    assert done.code == code, done.err
    assert sentence in done.err
    if "GatedRepo" in header.values():
        assert "set HF_TOKEN to a token that may read it" in done.err


def test_commit_that_is_gone(web, hub, table, fetch, tmp_path):
    """The commit of the first use is asked for; it is the one to name."""
    hub()
    source(table)
    assert fetch("birds").code == 0
    web.serve(f"/api/datasets/own/birds/revision/{NEW}", b"{}", status=404, headers={"X-Error-Code": "RevisionNotFound"})
    done = fetch("birds", "--force")
    assert done.code == 3
    assert f"own/birds has no commit {NEW}." in done.err
    assert "remove the source's record in .fetched" in done.err


def test_hub_out_of_reach(web, hub, table, fetch):
    """Exit code 5."""
    web.server.shutdown()
    web.server.server_close()
    source(table)
    done = fetch("birds")
    assert (done.code, "own/birds: the hub cannot be reached" in done.err) == (5, True)


def test_repository_that_changed_its_files(hub, table, fetch):
    """No silent half: a pattern without a file, too many bytes, a path that leaves the folder."""
    hub()
    source(table, files=["data/*.parquet", "more/*.parquet"])
    done = fetch("birds")
    assert (done.code, "own/birds has no file 'more/*.parquet'" in done.err) == (3, True)
    source(table, at_most=1000)
    done = fetch("birds")
    assert (done.code, "announces 45.4 kB; more than 1.0 kB is not believed" in done.err) == (3, True)
    hub({"data/../../evil.parquet": b"x"})
    source(table)
    done = fetch("birds")
    assert (done.code, "a path that leaves its folder" in done.err) == (3, True)


def test_cut_connection_continues(web, hub, table, fetch, caplog):
    """The hub's library continues by itself, in steps of 10 MiB; its own warnings, with whole addresses, are not shown."""
    hub({"data/train-0.parquet": bytes(25 << 20)})
    web.pages[f"/datasets/own/birds/resolve/{NEW}/data/train-0.parquet"].cuts = [22 << 20]
    source(table)
    done = fetch("birds")
    assert done.code == 0, done.err
    starts = [request.first for request in web.asked if "train" in request.path and request.method == "GET"]
    assert starts == [0, 20 << 20]
    assert "fetch data/train-0.parquet, MiB: 25/25" in done.err
    assert not [record for record in caplog.records if record.name.startswith("huggingface_hub")]
