"""docs/images.md: its commands are those that run here, its links exist, the profile of GPUs is the default one and more."""

import os
import re
import shutil
from pathlib import Path

import pytest
import yaml
from built_image import Image
from checkout import HERE, Checkout, check_out

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "images.md").read_text()
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]

BY_THE_IMAGE = ["containers/build"]
"""What the fixture `image` runs."""
NOT_HERE = ["containers/build cuda", "snakemake --cores 4 --workflow-profile profiles/gpu"]
"""Of CUDA: the page says that they were not run; the profile is, below, with the other image."""


def test_pictures_and_links_exist():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


def test_the_commands_are_those_that_are_tested():
    assert set(BY_THE_IMAGE) | set(NOT_HERE) < set(COMMANDS)
    assert "has not run on a GPU" in PAGE
    assert len(COMMANDS) == 10


def test_every_nvidia_library_of_the_cuda_image_is_named():
    lock = (ROOT / "containers" / "requirements.cuda.lock").read_text()
    names = {re.sub(r"^(cuda-)?(.*?)(-cu13)?$", r"\2", name) for name in re.findall(r"^nvidia-([a-z0-9-]+)==", lock, re.MULTILINE)}
    listed = PAGE.split("NVIDIA's libraries. ")[1].lower().replace("the cuda runtime", "runtime")
    assert len(names) > 10
    assert {name for name in names if name not in re.findall(r"[a-z0-9]+", listed)} == set()


def test_the_profile_of_gpus_is_the_default_one_and_more():
    default, gpu = (yaml.safe_load((ROOT / "profiles" / name / "profile.yaml").read_text()) for name in ("default", "gpu"))
    assert {key: gpu[key] for key in default} == default
    assert gpu.keys() - default.keys() == {"software-deployment-method", "config", "apptainer-args"}


@pytest.fixture
def study(image: Image, tmp_path: Path) -> Checkout:
    """A checkout with the image where the page says that it lies."""
    checkout = check_out(tmp_path / "study", (HERE / "mini.yaml").read_text())
    folder = checkout.path / "containers"
    folder.mkdir()
    for name in ("anchored.sif", "anchored.json", "anchored.sbom.json"):
        (folder / name).symlink_to(image.sif.parent / name)
    return checkout


@pytest.mark.containers
def test_the_commands_of_the_page_work(study: Checkout, image: Image):
    """In their order; `digitscenes` is the demo's dataset, here it is the miniature's."""
    printed = {}
    for command in COMMANDS:
        if command not in BY_THE_IMAGE + NOT_HERE:
            run = command.replace("anchored prepare digitscenes", "anchored prepare scenes")
            # test_inside.py runs the whole study.
            run = f"{run} -- data" if run.startswith("snakemake") else run
            printed[command] = study.run("bash", "-c", run).stdout
    assert image.told["digest"] in printed["apptainer exec containers/anchored.sif image show"]
    assert printed["apptainer exec containers/anchored.sif image verify"].strip() == image.told["digest"]
    assert "CycloneDX" in printed["apptainer exec containers/anchored.sif cat /opt/anchored/sbom.cdx.json"]
    assert "sha256:" + printed["sha256sum containers/anchored.sif"].split()[0] == image.told["sif"]
    assert (study.path / "results" / "data" / "scenes" / "record.json").is_file()


@pytest.mark.containers
def test_the_profile_of_gpus_runs_the_steps_in_the_image(study: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A program in Apptainer's place writes down how it was called, and calls it."""
    (study.path / "containers" / "anchored-cuda.sif").symlink_to((study.path / "containers" / "anchored.sif").resolve())
    wrapper = tmp_path / "programs" / "apptainer"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho "$*" >>"{tmp_path}/calls"\nexec "{shutil.which("apptainer")}" "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    study.run("snakemake", "--cores", "1", "--workflow-profile", "profiles/gpu", "--", "results/data/bank/manifest.json")
    (call,) = [call for call in (tmp_path / "calls").read_text().splitlines() if "exec" in call]
    assert f"exec --home {study.path} --nv" in " ".join(call.replace("'", "").split())
    assert "anchored-cuda.sif" in call
    assert '"variant": "cpu"' in (study.path / "results" / "data" / "bank" / "record.json").read_text()
