"""The command line as a user meets it: help, exit codes, one paragraph on stderr, the traceback in the log."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys

import pytest
import torch
import typer.main

from anchored.cli import app
from anchored.files import write_json
from anchored.paths import Paths

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def one_paragraph(err: str) -> str:
    """The error on stderr; fails where there is more than one, or a traceback."""
    assert "Traceback" not in err
    assert err.count("error: ") == 1
    return err[err.index("error: ") :]


def files_below(paths: Paths) -> set[str]:
    """All files of a study, without logs, locks, and the empty folders around them."""
    found = {path.relative_to(paths.root).as_posix() for path in paths.root.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith(("logs/", "work/locks/"))}


# --- help ------------------------------------------------------------------------------------------------------------------


def test_help_lists_every_command(run_cli):
    """The first thing that anybody types."""
    done = run_cli("--help")
    assert done.code == 0
    assert all(f"  {name} " in done.out for name in COMMANDS)
    assert {"plan", "prepare", "pretrain", "fim", "finetune", "evaluate", "tables"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_inputs_and_outputs(run_cli, command):
    """A step is a way from files to files; its help says which."""
    done = run_cli(command, "--help")
    assert done.code == 0
    text = " ".join(done.out.split())
    assert re.search(r"\bReads\b", text), text
    assert re.search(r"\b[Ww]rites\b", text), text


def test_version_of_the_command_is_installed(run_process, tmp_path):
    """The console script of the package, in a process of its own, far from the repository."""
    done = run_process("--help", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert os.listdir(tmp_path) == []


def test_the_package_is_a_program(tmp_path):
    done = subprocess.run([sys.executable, "-m", "anchored", "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "fetch" in done.stdout


@pytest.mark.parametrize("arguments", [["finetune"], ["no-such-command"], ["fim", "x", "--no-such-option"], ["prepare", "a", "b"]])
def test_wrong_usage(run_cli, arguments):
    """Exit code 2 as for every other program."""
    assert run_cli(*arguments).code == 2


# --- names and plans -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["prepare", "scene"], "'scene' is not among the datasets of the plan.\n  did you mean 'scenes'?"),
        (["pretrain", "resnet"], "'resnet' is not among the backbones of the plan.\n  did you mean 'resnet-"),
        (["fim", "dino"], "'dino' is not among the fims of the plan.\n  the plan has: fim-1, fim-2, vit-fim."),
        (["finetune", "res-resnet-1-erm-lr1e-2-r0"], "is neither a job nor a cell of the plan.\n  did you mean 'res-resnet-1-erm-"),
        (["finetune", "../../etc/passwd"], "'../../etc/passwd' is neither a job nor a cell of the plan."),
    ],
)
def test_unknown_name(run_cli, mini_plan, tmp_path, arguments, expected):
    """Exit code 2, the nearest name, and no file outside of the log folder."""
    write_json(tmp_path / "study/plan.json", mini_plan)
    done = run_cli(*arguments, root=tmp_path / "study")
    assert done.code == 2
    assert expected in one_paragraph(done.err)
    assert files_below(Paths(tmp_path / "study")) == {"plan.json"}
    assert os.listdir(tmp_path) == ["study"]


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"schema": 1}', '{"schema": 2}'])
@pytest.mark.parametrize("command", [["prepare", "scenes"], ["finetune", "x"], ["evaluate"], ["tables"]])
def test_corrupt_plan(run_cli, tmp_path, command, content):
    """Every command reads the plan first; every damage is exit code 2 and names the remedy."""
    if content is not None:
        (tmp_path / "plan.json").write_text(content)
    done = run_cli(*command, root=tmp_path)
    assert done.code == 2
    assert "run `anchored plan" in one_paragraph(done.err)


def test_plan_compiles_and_checks(run_cli, root, tmp_path):
    """`plan` writes, `plan --check` accepts what it wrote, and refuses it after a change of the configuration."""
    config, out = tmp_path / "study.yaml", tmp_path / "plan.json"
    shutil.copy(root / "tests/mini.yaml", config)
    arguments = ["--config", str(config), "--out", str(out)]
    assert run_cli("plan", *arguments, "--check").code == 2
    done = run_cli("plan", *arguments)
    assert done.code == 0
    assert "2 datasets, 3 backbones, 3 FIMs, 50 cells in 14 jobs" in done.out
    assert run_cli("plan", *arguments, "--check").code == 0
    config.write_text(config.read_text().replace("seed: 7", "seed: 8"))
    before = out.read_bytes()
    done = run_cli("plan", *arguments, "--check")
    assert done.code == 2
    assert "is not the plan of" in one_paragraph(done.err)
    assert out.read_bytes() == before
    config.write_text(config.read_text() + "\nseeed: 1\n")
    done = run_cli("plan", *arguments)
    assert done.code == 2
    assert "unknown key 'seeed'; did you mean 'seed'?" in one_paragraph(done.err)
    assert out.read_bytes() == before


# --- inputs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["pretrain", "vit"], "anchored prepare bank"),
        (["fim", "fim-1"], "anchored prepare bank"),
        (["finetune", "res-resnet-1-ewc-1"], "anchored prepare scenes"),
        (["finetune", "vit-vit-erm-lr1e-2-r0"], "anchored prepare scenes"),
        (["evaluate"], "anchored "),
        (["tables"], "anchored evaluate"),
    ],
)
def test_missing_input(run_cli, mini_plan, tmp_path, arguments, command):
    """In an empty folder every step says which command comes first: exit code 3."""
    write_json(tmp_path / "plan.json", mini_plan)
    done = run_cli(*arguments, root=tmp_path)
    assert done.code == 3
    assert "missing" in one_paragraph(done.err)
    assert f"run `{command}" in done.err
    assert files_below(Paths(tmp_path)) == {"plan.json"}


def test_foreign_fim(run_cli, mini_copy):
    """The FIM of the other copy has every name and shape right; nothing of the job may be written."""
    shutil.copy(mini_copy.fim("fim-2") / "fim.safetensors", mini_copy.fim("fim-1") / "fim.safetensors")
    before = files_below(mini_copy)
    done = run_cli("finetune", "res-resnet-1-ewc-1", root=mini_copy.root)
    assert done.code == 3
    assert "was measured on backbone" in one_paragraph(done.err)
    assert files_below(mini_copy) == before


def test_nan_checkpoint(run_cli, mini_copy):
    """A diverged or damaged backbone: exit code 3 from every step that reads it."""
    import safetensors.torch

    path = mini_copy.backbone("resnet-1") / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["student.layer1.0.conv1.weight"].view(-1)[3] = float("nan")
    safetensors.torch.save_file(tensors, path)
    for arguments in (["fim", "fim-1"], ["finetune", "res-resnet-1-erm-1"]):
        done = run_cli(*arguments, root=mini_copy.root)
        assert done.code == 3
        assert "holds NaN or infinity in student.layer1.0.conv1.weight" in one_paragraph(done.err)
    assert not mini_copy.run("res-resnet-1-erm-1").exists()


def test_diverging_learning_rate(run_cli, mini_copy, change_plan):
    """Exit code 4, the cell and its rate, and no predictions of a broken network."""
    cell = "res-resnet-1-erm-lr1e-3-r0"
    write_json(mini_copy.root / "plan.json", change_plan({("cells", cell, "hyper", "lr"): 1e30}))
    done = run_cli("finetune", "res-resnet-1-erm-1", root=mini_copy.root)
    assert done.code == 4
    text = one_paragraph(done.err)
    assert f"cell {cell}: loss or weights are not finite after epoch 1 ({{'lr': 1e+30}})" in text
    assert "lower the learning rate" in text
    assert not mini_copy.run("res-resnet-1-erm-1").exists()


def test_damaged_store(run_cli, mini_copy):
    """A shortened file of images is found before it is used."""
    path = mini_copy.data("scenes") / "images.npy"
    path.write_bytes(path.read_bytes()[:-100])
    done = run_cli("finetune", "res-resnet-1-erm-1", root=mini_copy.root)
    assert done.code == 3
    assert "images.npy differs from its manifest" in one_paragraph(done.err)
    assert "run `anchored prepare scenes" in done.err
    assert run_cli("prepare", "scenes", root=mini_copy.root).code == 0, "the remedy must work: an altered output is made again"
    assert run_cli("finetune", "vit-vit-erm-lr1e-2-r0", root=mini_copy.root).code == 0


# --- the machine -----------------------------------------------------------------------------------------------------------


def _small_disk(size: int):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


@pytest.mark.parametrize(
    ("arguments", "size", "file"),
    [
        (["prepare", "scenes"], 30_000, "results/data/scenes/images.npy"),
        (["pretrain", "vit", "--force"], 10_000, "work/pretrain-vit/state.pt"),
        (["finetune", "vit-vit-ewc-1"], 20_000, "work/vit-vit-ewc-lr1e-2-s1e0-r0/state.pt"),
    ],
)
def test_full_disk(run_process, mini_copy, arguments, size, file):
    """The operating system refuses to let files grow: exit code 5, no half file, no temporary, and the old results as they were."""
    shutil.rmtree((mini_copy.root / file).parent, ignore_errors=True)
    before = files_below(mini_copy)
    done = run_process(*arguments, cwd=mini_copy.root, preexec_fn=_small_disk(size))
    assert done.code == 5, done.err
    text = one_paragraph(done.err)
    assert f"cannot write {file}: file too large." in text
    assert "nothing was left half-written" in text
    assert files_below(mini_copy) == before


def test_full_disk_while_planning(run_process, root, tmp_path):
    """The old plan survives."""
    (tmp_path / "plan.json").write_text("old")
    arguments = ["plan", "--config", str(root / "tests/mini.yaml")]
    done = run_process(*arguments, cwd=tmp_path, preexec_fn=_small_disk(1000))
    assert done.code == 5
    assert "cannot write plan.json: file too large." in one_paragraph(done.err)
    assert os.listdir(tmp_path) == ["plan.json"]
    assert (tmp_path / "plan.json").read_text() == "old"


def test_lock_of_another_process(run_cli, mini_copy):
    """Two engines at once, or an impatient user: exit code 5 for the second."""
    from test_record import hold_lock

    other = hold_lock(mini_copy, "prepare-scenes.lock")
    try:
        done = run_cli("prepare", "scenes", root=mini_copy.root)
    finally:
        other.kill()
        other.wait()
    assert done.code == 5
    assert "another process is running prepare scenes in" in one_paragraph(done.err)
    assert run_cli("prepare", "scenes", root=mini_copy.root).code == 0


@pytest.mark.parametrize("kind", [MemoryError, KeyboardInterrupt])
def test_memory_and_interrupt(run_cli, mini_copy, monkeypatch, kind):
    """Too little memory is exit code 5; Ctrl-C says how to go on and is 130, as for every program."""

    def failing(*_, **__):
        raise kind

    monkeypatch.setattr("anchored.preparation.step.prepare", failing)
    done = run_cli("prepare", "scenes", root=mini_copy.root)
    if kind is MemoryError:
        assert done.code == 5
        assert "out of memory" in one_paragraph(done.err)
    else:
        assert done.code == 130
        assert done.err == "interrupted; run the same command again to continue.\n"


def test_log_folder_that_cannot_be_written(run_cli, mini_plan, tmp_path):
    """A file where the log folder should be."""
    write_json(tmp_path / "plan.json", mini_plan)
    (tmp_path / "logs").write_text("")
    done = run_cli("prepare", "scenes", root=tmp_path)
    assert done.code == 5
    assert "check --root, the disk and permissions" in one_paragraph(done.err)


# --- what is printed -------------------------------------------------------------------------------------------------------


def test_error_is_one_paragraph_and_the_log_has_the_traceback(run_process, mini_plan, tmp_path):
    """The user reads what to do; who has to find a defect reads the log."""
    write_json(tmp_path / "plan.json", mini_plan)
    done = run_process("prepare", "scene", cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines() == [
        "error: 'scene' is not among the datasets of the plan.", "  did you mean 'scenes'?", "  log: logs/prepare/scene.log",
    ]  # fmt: skip
    log = (tmp_path / "logs/prepare/scene.log").read_text()
    assert "Traceback (most recent call last)" in log
    assert "anchored.errors.ConfigError: 'scene' is not among" in log


def test_work_is_reported_on_stderr(run_cli, mini_copy):
    """stdout stays free for output that programs read; a second call says that there is nothing to do."""
    done = run_cli("prepare", "bank", "--force", root=mini_copy.root)
    assert (done.code, done.out) == (0, "")
    assert re.fullmatch(r"prepare bank: done in \d+\.\d s\n", done.err)
    done = run_cli("prepare", "bank", root=mini_copy.root)
    assert done.code == 0
    assert "prepare bank: nothing to do, " in done.err
    assert "nothing to do" in (mini_copy.root / "logs/prepare/bank.log").read_text()


def test_every_step_has_nothing_to_do_the_second_time(run_cli, mini_copy, monkeypatch):
    """Through the commands: no step may find its own result stale."""
    monkeypatch.setattr(torch.nn.Module, "__call__", lambda *_, **__: pytest.fail("a network was run"))
    for arguments in (["prepare", "scenes"], ["pretrain", "resnet-1"], ["pretrain", "vit"], ["fim", "fim-1"], ["fim", "vit-fim"]):
        done = run_cli(*arguments, root=mini_copy.root)
        assert done.code == 0
        assert "nothing to do" in done.err, arguments


def test_threads_of_the_plan_reach_the_libraries(run_cli, mini_copy, monkeypatch):
    """Other thread counts give other bits, so the plan's number must be set before the libraries are imported."""
    write_json(mini_copy.root / "plan.json", json.loads((mini_copy.root / "plan.json").read_text()) | {"threads": 3})
    seen = {}
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")
    note = lambda *_, **__: seen.update({name: os.environ[name] for name in variables})  # noqa: E731
    monkeypatch.setattr("anchored.preparation.step.prepare", note)
    assert run_cli("prepare", "scenes", root=mini_copy.root).code == 0
    assert seen == dict.fromkeys(variables, "3")
