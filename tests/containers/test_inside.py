"""The miniature study in the image, under Snakemake, on this machine and on a cluster. Its bytes: tests/test_ways.py."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from built_image import Image
from checkout import Checkout
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from license_expression import get_spdx_licensing

from anchored.files import file_digest

pytestmark = pytest.mark.containers
STEPS = 11


def records(checkout: Checkout) -> dict[str, dict[str, Any]]:
    return {str(path.relative_to(checkout.path)): json.loads(path.read_text()) for path in checkout.path.rglob("*record.json")}


def test_every_record_tells_its_image(in_image: Checkout, by_snakemake: Checkout, image: Image):
    expected = {key: image.told[key] for key in ("digest", "sbom", "variant", "base", "revision", "modified")}
    found = records(in_image)
    assert len(found) == STEPS
    assert {path: record["image"] for path, record in found.items()} == dict.fromkeys(found, expected)
    assert {record["code"]["commit"] for record in found.values()} == {image.told["revision"]}
    assert {record["image"] for record in records(by_snakemake).values()} == {None}


def test_the_key_of_a_result_does_not_depend_on_where_it_was_computed(in_image: Checkout, by_snakemake: Checkout):
    assert {path: record["key"] for path, record in records(in_image).items()} == {
        path: record["key"] for path, record in records(by_snakemake).items()
    }


@pytest.mark.parametrize(
    ("options", "jobs"), [(("--sdm", "apptainer"), 0), (("--rerun-triggers", "code", "input", "mtime", "params"), 0), ((), STEPS)]
)
def test_going_on_outside_of_the_image_takes_an_option(in_image: Checkout, image: Image, options: tuple[str, ...], jobs: int):
    """Snakemake takes a step with another image, or with none, for another step."""
    done = in_image.run("snakemake", "--dry-run", "--config", f"container={image.sif}", *options)
    assert len(re.findall(r"^(?:Shell command: )anchored .*$", done.stdout + done.stderr, flags=re.MULTILINE)) == jobs


def test_the_page_of_the_report_names_the_image(in_image: Checkout, image: Image):
    page = (in_image.path / "results" / "report.html").read_text()
    assert image.told["digest"].removeprefix("sha256:")[:10] in page


def test_a_run_in_the_image_leaves_nothing_else_in_the_checkout(in_image: Checkout, by_snakemake: Checkout):
    """The working folder is the home of a program in the image: caches would land there."""
    assert {path.name for path in in_image.path.iterdir()} == {path.name for path in by_snakemake.path.iterdir()}


def test_edited_code_is_refused_by_an_image_that_lacks_the_edit(in_image: Checkout, image: Image, tmp_path: Path):
    """Snakemake sees the edit and runs the step again; the image would compute the old numbers once more."""
    checkout = in_image.copy(tmp_path / "edited")
    module = checkout.path / "src" / "anchored" / "report" / "text.py"
    module.write_text(module.read_text() + "\n# edited\n")
    done = checkout.run("snakemake", "--cores", "1", "--sdm", "apptainer", "--config", f"container={image.sif}", check=False)
    assert done.returncode == 1
    assert "its code of tables is not that of this checkout" in done.stderr
    assert "build the image again with `containers/build`" in done.stderr
    by_hand = image.execute("anchored", "tables", cwd=checkout.path, check=False)
    assert by_hand.returncode == 5
    assert "its code of tables is not that of this checkout" in by_hand.stderr
    evaluated = image.execute("anchored", "evaluate", cwd=checkout.path)
    assert "nothing to do" in evaluated.stderr + evaluated.stdout


def test_jobs_of_a_cluster_run_in_the_image(in_image_by_slurm: Checkout, image: Image):
    found = records(in_image_by_slurm)
    assert len(found) == STEPS
    assert {record["image"]["digest"] for record in found.values()} == {image.told["digest"]}
    (log,) = (in_image_by_slurm.path / ".snakemake" / "log").glob("*.log")
    # Each step, and the rule that asks for all of them.
    assert log.read_text().count("has been submitted with SLURM jobid") in (STEPS, STEPS + 1)


def test_the_sif_is_what_was_described(image: Image, tmp_path: Path):
    assert image.execute("image", "verify", cwd=tmp_path).stdout.strip() == image.told["digest"]
    assert image.told["sif"] == f"sha256:{file_digest(image.sif)}"


def test_the_list_of_packages_is_valid_and_names_what_steps_need(image: Image, tmp_path: Path):
    text = image.execute("cat", "/opt/anchored/sbom.cdx.json", cwd=tmp_path).stdout
    assert text == (image.sif.parent / "anchored.sbom.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    components = {component["purl"].split("@")[0]: component for component in json.loads(text)["components"]}
    assert {"pkg:pypi/torch", "pkg:pypi/anchored", "pkg:deb/debian/libc6", "pkg:deb/debian/python3.11-minimal"} <= components.keys()
    assert components["pkg:pypi/torch"]["version"] == "2.13.0+cpu"
    names = {name.split("/")[-1] for name in components}
    assert not names & {"snakemake", "dvc", "pip", "python3-venv", "gcc"}
    expressions = [each["expression"] for part in components.values() for each in part.get("licenses", ()) if "expression" in each]
    assert [each for each in expressions if get_spdx_licensing().validate(each).errors] == []
    nameless = [name for name, component in components.items() if not component.get("licenses")]
    assert len(nameless) < len(components) / 10, nameless


def test_the_image_runs_as_nobody_special_and_says_what_it_is(image: Image):
    (config,) = json.loads(image.engine("image", "inspect", "localhost/anchored:cpu"))
    assert config["Id"] in image.told["oci"]
    assert config["User"] == "anchored"
    assert not config["Config"].get("Entrypoint")
    labels = config["Labels"]
    assert labels["org.opencontainers.image.revision"] == image.told["revision"]
    assert labels["org.opencontainers.image.base.name"] == image.told["base"]
    assert {"org.opencontainers.image.title", "org.opencontainers.image.licenses"} <= labels.keys()
    variables = dict(variable.split("=", 1) for variable in config["Config"]["Env"])
    assert variables["PYTHONNOUSERSITE"] == "1"
    assert not [name for name in variables if name.endswith("_NUM_THREADS") or name.startswith("PIP_")]


def test_nothing_of_the_builder_is_in_the_image(image: Image, tmp_path: Path):
    (config,) = json.loads(image.engine("image", "inspect", "localhost/anchored:cpu"))
    history = json.dumps(config["History"])
    assert os.environ.get("PIP_INDEX_URL", "PIP_INDEX_URL") not in history
    listed = image.execute("ls", "/", "/opt", "/mnt", "/opt/anchored", cwd=tmp_path).stdout
    assert "wheels" not in listed
    assert "build" not in listed
    assert image.execute("sh", "-c", "command -v pip snakemake dvc gcc", cwd=tmp_path, check=False).stdout == ""


def test_packages_of_the_host_do_not_reach_the_image(image: Image, tmp_path: Path):
    """A working folder's PYTHONPATH, or packages in ~/.local, once shadowed those of published images."""
    for folder in (tmp_path, tmp_path / ".local" / "lib" / "python3.11" / "site-packages"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "typer.py").write_text("raise SystemExit('of the host')")
    done = image.execute("anchored", "--help", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert "worst group" in done.stdout


def test_a_second_build_has_nothing_to_do(image: Image):
    done = subprocess.run([image.sif.parent / "build"], env=os.environ | image.settings, capture_output=True, text=True, check=True)
    assert "nothing to do" in done.stdout
