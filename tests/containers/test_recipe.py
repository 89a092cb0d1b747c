"""The image's files, without building it: every package by version and hash, one recipe, no engine, nothing of a machine."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTAINERS = ROOT / "containers"
VARIANTS = ("cpu", "cuda")
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[a-z0-9_,-]+\])?==([^\s;\\]+)(.*)$")
ENGINES = {"snakemake", "dvc", "snakemake-executor-plugin-slurm"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: Path) -> dict[str, str]:
    """Package -> version; local versions (`+cpu`) cut off."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith(("#", " "))]
    found = [PIN.match(line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if not match]
    return {normal(match[1]): match[2].split("+")[0] for match in found if match}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_package_has_a_hash(variant: str):
    text = (CONTAINERS / f"requirements.{variant}.lock").read_text()
    requirements = re.split(r"\n(?=\S)", text.split("\n", 1)[1].strip())
    assert len(requirements) > 50
    assert [each for each in requirements if not re.search(r"--hash=sha256:[0-9a-f]{64}", each)] == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_image_holds_the_versions_that_run_outside(variant: str):
    inside, outside = pins(CONTAINERS / f"requirements.{variant}.lock"), pins(ROOT / "requirements.lock")
    differing = {name for name in inside.keys() & outside.keys() if inside[name] != outside[name]}
    assert differing == set(), "run `make lock`"
    # pip leaves setuptools out of what it freezes; CUDA's packages come with PyPI's torch.
    more = {name for name in inside.keys() - outside.keys() if not name.startswith(("nvidia-", "cuda-"))}
    assert more <= {"setuptools", "triton"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_image_holds_all_that_the_package_imports_and_no_engine(variant: str):
    inside = pins(CONTAINERS / f"requirements.{variant}.lock").keys()
    block = re.search(r"^dependencies = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert block
    needed = {normal(name) for name in re.findall(r'"([A-Za-z0-9_-]+)', block[1])}
    assert needed <= inside
    assert not ENGINES & inside


def test_the_cpu_image_holds_nothing_of_cuda():
    assert [name for name in pins(CONTAINERS / "requirements.cpu.lock") if name.startswith(("nvidia", "cuda", "triton"))] == []
    assert "\ntorch==2.13.0+cpu " in (CONTAINERS / "requirements.cpu.lock").read_text()


def test_the_cuda_image_holds_cuda():
    names = pins(CONTAINERS / "requirements.cuda.lock").keys()
    assert {"torch", "triton", "nvidia-cudnn-cu13", "nvidia-cublas"} <= names


def test_the_base_is_a_tag_with_its_digest():
    text = (CONTAINERS / "Dockerfile").read_text()
    (base,) = re.findall(r"^ARG BASE=(\S+)$", text, re.MULTILINE)
    assert re.fullmatch(r"docker\.io/library/debian:bookworm-\d{8}-slim@sha256:[0-9a-f]{64}", base)
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BASE}", "python", "python"]


def test_packages_of_python_come_from_the_lock_only():
    installs = re.findall(r"pip install.*?(?:&&|$)", (CONTAINERS / "Dockerfile").read_text().replace("\\\n", ""), re.MULTILINE)
    assert len(installs) == 2
    assert all("--no-index" in each for each in installs)
    assert "--require-hashes" in installs[0]
    assert "--no-deps" in installs[1]


def test_the_sif_has_no_recipe_of_its_own():
    """Two recipes drift apart: a published .def was three CUDA versions behind its Dockerfile."""
    text = (CONTAINERS / "anchored.def").read_text()
    assert re.findall(r"^%(\w+)", text, re.MULTILINE) == ["arguments", "environment", "test"]
    assert "Bootstrap: docker-archive" in text


def test_only_the_profile_of_gpus_asks_for_them():
    files = [*CONTAINERS.iterdir(), *(ROOT / "workflow").rglob("*.smk"), ROOT / "Snakefile"]
    assert [file for file in files if file.is_file() and re.search(r"(?<!\w)--nv\b", file.read_text(errors="replace"))] == []


def test_nothing_of_a_machine_is_in_the_recipe():
    """Host names of registries and folders of whoever builds would go into every image."""
    for file in (file for file in CONTAINERS.iterdir() if file.is_file() and file.suffix not in (".sif", ".json")):
        text = file.read_text()
        hosts = set(re.findall(r"https?://([^/\s\"']+)", text)) - {"cyclonedx.org"}
        assert hosts == set(), file
        assert re.findall(r"(?:/home/(?!anchored)|/root|/work/)\S*", text) == [], file
