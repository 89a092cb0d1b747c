"""Every command of docs/dvc.md, in its order, on the miniature study; with a folder as the remote."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import REPOSITORY, Checkout
from dvc_remote import Remote, contents

from anchored.plan.load import load_plan

PAGE = (REPOSITORY / "docs" / "dvc.md").read_text()
# Names of the page, which are the demo's, and what the miniature study has in their place.
NAMES = {
    "fim@dino-1": "fim_merge@fim",
    "fim/dino-1": "fim/fim",
    "tiny-resnet-1": "resnet",
    "digitscenes-resnet-ewc-1": "res-resnet-ewc-1",
    "prepare digitscenes": "prepare scenes",
    "config/birds.yaml": "config.yaml",
    "make check-lock": f"make --file {REPOSITORY}/Makefile --old-file .venv/installed BIN={Path(sys.executable).parent} check-lock",
}


def blocks(heading: str) -> list[str]:
    """The commands of a section, block by block."""
    (section,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return re.findall(r"```bash\n(.*?)```", section, re.DOTALL)


class Reader:
    """Somebody who types what the page says in `checkout`."""

    def __init__(self, checkout: Checkout, places: dict[str, str]):
        self.checkout = checkout
        self.places = NAMES | places

    def types(self, block: str, *, folder: Path | None = None) -> str:
        """Runs a block in a shell; returns what it printed."""
        for shown, real in self.places.items():
            block = block.replace(shown, real)
        author = {f"GIT_{role}_{what}": "test" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=folder or self.checkout.path, env=self.checkout.environment | author, capture_output=True, text=True, check=False,
            timeout=1200,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        return done.stdout + done.stderr


def test_the_names_on_the_page_are_those_of_the_demo():
    plan = load_plan(REPOSITORY / "plan.json")
    assert "dino-1" in plan["whole"]
    assert "tiny-resnet-1" in plan["pretrained"]
    assert "digitscenes-tiny-resnet-1-ewc-1" in plan["anchored"]
    assert "digitscenes" in plan["datasets"]


def test_ssh_is_set_up_as_in_the_tests_of_remotes():
    """These run the same commands against a real server."""
    ssh = Remote(Path(), "ssh://alice@storage.example.org/srv/anchored", Path("~/.ssh/id_ed25519"))
    assert blocks("Push them")[1].splitlines() == ssh.commands()


def test_links_exist():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", PAGE)
    assert [link for link in links if not (REPOSITORY / "docs" / link).exists()] == []


def test_the_lock_of_the_demo_is_not_in_git():
    """The page says so, and why."""
    tracked = subprocess.run(["git", "ls-files", "dvc.lock"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert tracked.stdout == ""


@pytest.mark.workflow
@pytest.mark.parametrize("adopted", ["snakemake"], indirect=True)
def test_every_command_works(adopted: Checkout, tmp_path: Path):
    owner = adopted.copy(tmp_path / "birds")
    remote = Remote(tmp_path / "remote", str(tmp_path / "remote"))
    places = {"/mnt/storage/anchored": remote.url, "https://git.example.org/birds.git": str(owner.path)}
    typing = Reader(owner, places)

    repro, crossing = blocks("Make the results, or hand them over")
    assert "Data and pipelines are up to date." in typing.types(repro)
    assert "adopted: DVC has nothing to do" in typing.types(crossing)
    typing.types(blocks("Push them")[0])
    typing.types(blocks("Push them")[2])
    assert "0 errors" in typing.types(blocks("Pitfalls")[0].splitlines()[0])
    assert json.loads(typing.types(blocks("Pitfalls")[0].splitlines()[1]))["exit_code"] == 0
    rows = typing.types(blocks("Compare two commits")[0])
    assert "res.val-wga.tuned.erm.average" in rows
    assert (owner.path / "dvc_plots" / "index.html").is_file()
    assert "Data and pipelines are up to date." in typing.types(blocks("Compare two commits")[1])

    (elsewhere := tmp_path / "elsewhere").mkdir()
    clone = Checkout(elsewhere / "birds")
    (pulling,) = blocks("Pull them in a fresh clone")
    printed = Reader(clone, places).types(pulling, folder=elsewhere)
    assert "Data and pipelines are up to date." in printed
    assert "Nothing to be done" in printed
    assert contents(clone) == contents(owner)

    reviewer = owner.clone(tmp_path / "reviewer" / "birds")
    typing = Reader(reviewer, places)
    (checking,) = blocks("Check the lock in CI")
    stages = owner.run("dvc", "stage", "list", "--name-only").stdout.split()
    printed = typing.types(checking)
    assert [name for name in stages if f"Stage '{name}' didn't change, skipping" not in printed] == []
    one, repeating, comparing = blocks("Pull one FIM, repeat one job")
    typing.types(one)
    fetched = {name for name in contents(reviewer) if not name.startswith(("tables", "figures"))}
    assert fetched == {"fim/fim/fim.safetensors"}
    typing.types(repeating)
    job = "runs/res-resnet-ewc-1"
    assert contents(reviewer)[f"{job}/predictions.parquet"] == contents(owner)[f"{job}/predictions.parquet"]
    differing = [line.split()[1] for line in typing.types(comparing).splitlines() if re.match(r"[AMD]\s", line)]
    assert differing == [f"results/{job}/record.json"]
    assert contents(reviewer)[f"{job}/record.json"] == contents(owner)[f"{job}/record.json"]
    _the_check_fails_where_code_differs(reviewer, typing, checking)


def _the_check_fails_where_code_differs(reviewer: Checkout, typing: Reader, checking: str) -> None:
    module = reviewer.path / "src" / "anchored" / "preparation" / "step.py"
    module.write_text(module.read_text() + "\n# edited\n")
    with pytest.raises(AssertionError, match="Running stage 'prepare@scenes'"):
        typing.types(checking)
