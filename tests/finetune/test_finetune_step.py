"""The step `finetune`: cells and jobs give the same bytes, kills are survived, and what it reads is checked."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import safetensors.torch
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from anchored import record
from anchored.backbones.checkpoint import load_anchor
from anchored.backbones.features import features, to_input
from anchored.data.store import open_store
from anchored.device import place
from anchored.errors import InputError
from anchored.files import write_json, write_parquet
from anchored.finetune.linear_probe import probe_cell
from anchored.finetune.loop import Classifier, Material, _Trainer
from anchored.finetune.state import CellState
from anchored.finetune.step import finetune
from anchored.fisher.errors import ForeignFisher
from anchored.paths import Paths

CPU = torch.device("cpu")
JOB, CELL = "res-resnet-1-erm-1", "res-resnet-1-erm-lr4e-3-r1"
COLUMNS = {
    "cell": pl.String, "epoch": pl.Int16, "split": pl.String, "row": pl.Int32, "y": pl.Int16, "a": pl.Int16, "group": pl.Int16,
    "prediction": pl.Int16, "logits": pl.List(pl.Float32),
}  # fmt: skip


def predictions(paths: Paths, name: str) -> pl.DataFrame:
    return pl.read_parquet(paths.run(name) / "predictions.parquet")


@pytest.fixture(scope="module")
def done(mini: Paths, mini_plan, tmp_path_factory) -> Paths:
    """A folder where one job of each kind has run; tests must not change it."""
    root = tmp_path_factory.mktemp("runs")
    shutil.copytree(mini.results, root / "results")
    paths = Paths(root)
    for job in (JOB, "res-resnet-1-linear-probe-1", "res-resnet-1-ewc-1", "vit-vit-ewc-1"):
        finetune(mini_plan, job, paths)
    return paths


def test_predictions_hold_val_and_test_of_every_candidate_epoch(done, mini_plan):
    """Tables are computed from this file alone: columns, dtypes, rows and order as finetune/predictions.py says."""
    frame = predictions(done, JOB)
    assert dict(frame.schema) == COLUMNS
    cells = mini_plan["baseline"][JOB]["cells"]
    assert len(cells) == 4
    store = open_store(done.data("scenes"))
    groups = frame.partition_by("cell", "epoch", "split", as_dict=True, maintain_order=True)
    assert set(groups) == {(cell, epoch, split) for cell in cells for epoch in (1, 2) for split in ("val", "test")}
    for (cell, _, split), part in groups.items():
        rows = store.rows(split, mini_plan["cells"][cell]["draw"])
        assert part["row"].to_list() == rows.tolist()
        for column in ("y", "a", "group"):
            assert part[column].to_list() == store.column(column, rows).tolist()
        logits = np.array(part["logits"].to_list())
        assert logits.shape == (len(rows), 2)
        assert part["prediction"].to_list() == logits.argmax(1).tolist()


def test_only_the_last_epoch_where_the_plan_says_last(done):
    """`candidates: last` keeps the file small; the last epoch is the only candidate."""
    frame = predictions(done, "vit-vit-ewc-1")
    assert dict(frame.schema) == COLUMNS
    assert frame.group_by("epoch", "split").len().sort("split").rows() == [(1, "test", 48), (1, "val", 40)]


def test_cell_alone_gives_the_bytes_of_the_job(done, mini, mini_plan, tmp_path):
    """Whoever re-runs one cell of a table must get that cell, not a relative of it: predictions, history, weights."""
    shutil.copytree(mini.results, tmp_path / "results")
    alone = Paths(tmp_path)
    finetune(mini_plan, CELL, alone)
    for file in ("predictions.parquet", "history.parquet"):
        whole = pl.read_parquet(done.run(JOB) / file)
        write_parquet(tmp_path / "part.parquet", whole.filter(pl.col("cell") == CELL))
        assert (tmp_path / "part.parquet").read_bytes() == (alone.run(CELL) / file).read_bytes(), file
    models = safetensors.torch.load_file(done.run(JOB) / "models.safetensors")
    own = safetensors.torch.load_file(alone.run(CELL) / "models.safetensors")
    assert set(own) == {name for name in models if name.startswith(f"{CELL}/")}
    assert all(torch.equal(own[name], models[name]) for name in own)


def test_stored_models_reproduce_the_predictions(done, mini_plan):
    """`save_models` promises the network behind the last predictions."""
    entry = mini_plan["backbones"]["resnet-1"]
    backbone, _ = load_anchor(done.backbone("resnet-1") / "model.safetensors", entry, made_by="x")
    models = safetensors.torch.load_file(done.run(JOB) / "models.safetensors")
    model = place(Classifier(backbone, 2), CPU)
    model.load_state_dict({name.removeprefix(f"{CELL}/"): value for name, value in models.items() if name.startswith(f"{CELL}/")})
    frame = predictions(done, JOB).filter((pl.col("cell") == CELL) & (pl.col("epoch") == 2))
    store = open_store(done.data("scenes"))
    for split in ("val", "test"):
        part = frame.filter(pl.col("split") == split)
        with torch.inference_mode():
            logits = model.eval()(to_input(store.layer("image")[part["row"].to_numpy()], entry, CPU))
        np.testing.assert_allclose(logits.numpy(), np.array(part["logits"].to_list()), rtol=1e-5, atol=1e-6)


def test_models_are_left_out_where_the_plan_says_so(done):
    """360 cells of a ViT-B would be 120 GB; the declared file exists all the same."""
    assert safetensors.torch.load_file(done.run("vit-vit-ewc-1") / "models.safetensors") == {}


def test_linear_probe_is_scikit_learn_s(done, mini_plan):
    """Standardised features, logistic regression with C: computed directly, decision by decision."""
    frame = predictions(done, "res-resnet-1-linear-probe-1")
    entry = mini_plan["backbones"]["resnet-1"]
    backbone, _ = load_anchor(done.backbone("resnet-1") / "model.safetensors", entry, made_by="x")
    store = open_store(done.data("scenes"))
    cells = mini_plan["baseline"]["res-resnet-1-linear-probe-1"]["cells"]
    assert {(mini_plan["cells"][cell]["hyper"]["c"], mini_plan["cells"][cell]["draw"]) for cell in cells} == {
        (0.1, 0), (0.1, 1), (10.0, 0), (10.0, 1),
    }  # fmt: skip
    for name in cells:
        cell = mini_plan["cells"][name]
        rows = {split: store.rows(split, cell["draw"]) for split in ("train", "val", "test")}
        known = {split: features(backbone, to_input(store.layer("image")[chosen], entry, CPU)) for split, chosen in rows.items()}
        scaler = StandardScaler().fit(known["train"])
        fitted = LogisticRegression(C=cell["hyper"]["c"], max_iter=2000).fit(
            scaler.transform(known["train"]), store.column("y", rows["train"])
        )
        for split in ("val", "test"):
            part = frame.filter((pl.col("cell") == name) & (pl.col("split") == split))
            assert part["epoch"].unique().to_list() == [0]
            logits = np.array(part["logits"].to_list())
            expected = fitted.decision_function(scaler.transform(known[split]))
            np.testing.assert_allclose(logits[:, 1] - logits[:, 0], expected, rtol=1e-3, atol=1e-4)
            assert part["prediction"].to_list() == fitted.predict(scaler.transform(known[split])).tolist()


def test_a_class_that_train_lacks_is_never_predicted(done, mini_plan):
    """Decisions come by the classes that were fitted: of classes 0 and 2 the second column is that of class 2."""
    entry, cell = mini_plan["backbones"]["resnet-1"], next(c for c in mini_plan["cells"].values() if c["arm"] == "linear-probe")
    backbone, _ = load_anchor(done.backbone("resnet-1") / "model.safetensors", entry, made_by="x")
    store = open_store(done.data("scenes"))
    labels = pl.when(pl.col("split") == "train").then(2 * pl.col("y")).otherwise(pl.col("y") + 1)
    gap = replace(store, index=store.index.with_columns(labels.cast(pl.Int16).alias("y")))
    found, plain = (
        probe_cell(cell, Material(each, entry, lambda: backbone, None, CPU), "key", {}).logits["0/test"] for each in (gap, store)
    )
    assert found.shape[1] == 3
    assert torch.isneginf(found[:, 1]).all()
    assert torch.equal(found[:, [0, 2]], plain)
    assert torch.equal(found.argmax(1), 2 * plain.argmax(1))


def test_history_of_probes_is_empty_but_there(done):
    """Engines declare the file for every job."""
    assert pl.read_parquet(done.run("res-resnet-1-linear-probe-1") / "history.parquet").columns == ["cell", "epoch"]


def test_resume_state_is_gone_after_the_job(done):
    """work/ of 360 cells would outgrow the results."""
    assert [path for path in (done.root / "work").iterdir() if path.name != "locks"] == []


# --- kills and foreign states ----------------------------------------------------------------------------------------------


@pytest.fixture
def long_plan(change_plan):
    """The job with enough epochs to be killed between two of them."""
    plan = change_plan({})
    for cell in plan["baseline"][JOB]["cells"]:
        plan["cells"][cell]["training"] |= {"epochs": 12, "candidates": "last"}
    return plan


def test_killed_job_ends_with_the_bytes_of_an_uninterrupted_one(mini, long_plan, tmp_path, monkeypatch):
    """SIGKILL in mid-training, as a cluster does it; then the same command again."""
    killed, whole = (Paths(tmp_path / name) for name in ("killed", "whole"))
    for paths in (killed, whole):
        shutil.copytree(mini.results, paths.results)
        write_json(paths.root / "plan.json", long_plan)
    cells = long_plan["baseline"][JOB]["cells"]
    command = [str(Path(sys.executable).with_name("anchored")), "finetune", JOB]
    process = subprocess.Popen(command, cwd=killed.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = killed.work(cells[1]) / "state.pt"  # the second cell: the first is then whole, and has to be taken over
    deadline = time.monotonic() + 240
    while not (state.exists() and torch.load(state, weights_only=True)["epoch"] >= 1):
        assert process.poll() is None, "the job ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    reached = torch.load(state, weights_only=True)
    assert 1 <= reached["epoch"] < 12
    assert not (killed.run(JOB) / "record.json").exists()

    epochs: list[str] = []
    original = _Trainer.train_epoch
    monkeypatch.setattr(_Trainer, "train_epoch", lambda self, epoch: (epochs.append(self.name), original(self, epoch))[1])
    finetune(long_plan, JOB, killed)
    assert cells[0] not in epochs
    assert epochs.count(cells[1]) == 12 - reached["epoch"]
    finetune(long_plan, JOB, whole)
    for file in ("predictions.parquet", "history.parquet", "models.safetensors"):
        assert (killed.run(JOB) / file).read_bytes() == (whole.run(JOB) / file).read_bytes(), file


def test_a_kill_between_results_and_record_costs_no_epoch(mini_copy, mini_plan, monkeypatch):
    """An engine removes results without a record and starts the job again, which then needs the states."""
    with monkeypatch.context() as patch:
        patch.setattr(record, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finetune(mini_plan, JOB, mini_copy)
    shutil.rmtree(mini_copy.run(JOB))
    monkeypatch.setattr(_Trainer, "train_epoch", lambda *_: pytest.fail("an epoch was computed again"))
    finetune(mini_plan, JOB, mini_copy)
    assert (mini_copy.run(JOB) / "record.json").is_file()
    assert [path for path in (mini_copy.root / "work").glob("res-*")] == []


def interrupted(paths: Paths, plan, monkeypatch, cell: str, after: int) -> bytes:
    """Trains a cell, fails after some epochs, and returns the state that was left."""
    original = _Trainer.train_epoch

    def failing(self, epoch):
        if epoch > after:
            raise KeyboardInterrupt
        return original(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(_Trainer, "train_epoch", failing)
        with pytest.raises(KeyboardInterrupt):
            finetune(plan, cell, paths)
    return (paths.work(cell) / "state.pt").read_bytes()


@pytest.mark.parametrize(
    "name", ["vit-vit-ewc-lr1e-2-s1e0-r0", "res-resnet-1-freeze-k1-lr1e-3-r0", "res-resnet-1-ewc-shuffled-lr1e-3-s3e1-r1"]
)
def test_every_kind_of_cell_resumes_to_the_same_bytes(mini_copy, change_plan, name, monkeypatch, tmp_path):
    """Momenta of SGD, frozen parameters and permuted anchors must all come back; the killed job above has none of them."""
    plan = change_plan({("cells", name, "training", "epochs"): 3})
    shutil.copytree(mini_copy.root, tmp_path / "whole")
    whole = Paths(tmp_path / "whole")
    interrupted(mini_copy, plan, monkeypatch, name, after=2)
    finetune(plan, name, mini_copy)
    finetune(plan, name, whole)
    for file in ("predictions.parquet", "history.parquet", "models.safetensors"):
        assert (mini_copy.run(name) / file).read_bytes() == (whole.run(name) / file).read_bytes(), file


def _other_key(data: bytes) -> bytes:
    import io

    value = torch.load(io.BytesIO(data), weights_only=True)
    buffer = io.BytesIO()
    torch.save(value | {"key": "0" * 64}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("damage", "warning"),
    [
        (_other_key, "belongs to another plan, input or code"),
        (lambda data: data[:-50], "cannot be read"),
        (lambda _: b"", "cannot be read"),
    ],
    ids=["other key", "cut short", "empty"],
)
def test_foreign_or_broken_state_is_ignored(mini_copy, done, mini_plan, monkeypatch, caplog, damage, warning):
    """A state of another learning rate would continue as a mixture of two cells."""
    data = interrupted(mini_copy, mini_plan, monkeypatch, CELL, after=1)
    (mini_copy.work(CELL) / "state.pt").write_bytes(damage(data))
    logger = logging.getLogger("anchored")
    logger.addHandler(caplog.handler)
    logger.setLevel("INFO")
    finetune(mini_plan, CELL, mini_copy)
    logger.removeHandler(caplog.handler)
    expected = predictions(done, JOB).filter(pl.col("cell") == CELL)
    assert predictions(mini_copy, CELL).equals(expected)
    assert warning in caplog.text


def test_changed_cell_does_not_continue_the_old_one(mini_copy, done, mini_plan, change_plan, monkeypatch):
    """Between a kill and the next try the plan was edited: the old state is of another cell."""
    other = change_plan({("cells", CELL, "hyper", "lr"): 9e-3})
    interrupted(mini_copy, other, monkeypatch, CELL, after=1)
    finetune(mini_plan, CELL, mini_copy)
    assert predictions(mini_copy, CELL).equals(predictions(done, JOB).filter(pl.col("cell") == CELL))


def test_state_round_trip(tmp_path):
    """What a state holds comes back, and a fresh one where there is none."""
    state = CellState("k", epoch=2, network={"a": torch.ones(2)}, history=[{"epoch": 1}], logits={"1/val": torch.zeros(1)})
    state.save(tmp_path / "state.pt")
    loaded = CellState.load(tmp_path / "state.pt", "k")
    assert (loaded.epoch, loaded.history, loaded.finished) == (2, [{"epoch": 1}], False)
    assert torch.equal(loaded.network["a"], torch.ones(2))
    assert CellState.load(tmp_path / "none.pt", "k") == CellState("k")


# --- what it reads ---------------------------------------------------------------------------------------------------------

EWC = "res-resnet-1-ewc-1"


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("results/fim/fim-1/fim.safetensors", "anchored fim fim-1"),
        ("results/backbones/resnet-1/model.safetensors", "anchored pretrain resnet-1"),
        ("results/data/scenes/manifest.json", "anchored prepare scenes"),
    ],
)
def test_missing_input_names_its_command(mini_copy, mini_plan, missing, command):
    """The next command is part of the message."""
    (mini_copy.root / missing).unlink()
    with pytest.raises(InputError, match="finetune res-resnet-1-ewc-1 needs 3 files, 1 of them missing: ") as caught:
        finetune(mini_plan, EWC, mini_copy)
    assert missing in caught.value.message
    assert caught.value.hint.startswith(f"run `{command}`")


@pytest.mark.parametrize(("foreign", "expected"), [("fim-2", "was measured on backbone"), ("vit-fim", "which the model lacks")])
def test_foreign_fim_is_refused_and_nothing_written(mini_copy, mini_plan, foreign, expected):
    """A copy's FIM has all names and shapes right: only the digest of the backbone tells."""
    shutil.copy(mini_copy.fim(foreign) / "fim.safetensors", mini_copy.fim("fim-1") / "fim.safetensors")
    with pytest.raises(InputError, match=expected) as caught:
        finetune(mini_plan, EWC, mini_copy)
    assert caught.value.exit_code == 3
    assert foreign != "fim-2" or isinstance(caught.value, ForeignFisher)
    assert not mini_copy.run(EWC).exists()
    assert list((mini_copy.root / "work").glob("res-*")) == []
