"""The committed manual and schema are those of the models, and the schema accepts what the models accept."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from anchored.plan.config import Config
from anchored.plan.manual import manual_text, schema_text, write_manual

REPAIR = "config/{} is not what the models say: run `anchored plan --manual` and commit it."


@pytest.mark.parametrize(("file", "text"), [("schema.json", schema_text), ("README.md", manual_text)])
def test_committed_file_is_the_generated_one(root, file, text):
    """A default that changes in the models must change in the manual in the same commit."""
    assert (root / "config" / file).read_text() == text(), REPAIR.format(file)


def test_command_writes_both_files(tmp_path, run_cli):
    """The command that the test above tells people to run."""
    done = run_cli("plan", "--manual", "--config", str(tmp_path / "any.yaml"))
    assert done.code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "schema.json"]
    assert (tmp_path / "schema.json").read_text() == schema_text()
    assert str(tmp_path / "README.md") in done.out


def test_schema_is_valid_and_accepts_the_shipped_configurations(root):
    """Editors complete and mark by it: it must be a 2020-12 schema that holds for real files."""
    schema = json.loads(schema_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in (*(root / "config").glob("*.yaml"), root / "tests/mini.yaml"):
        assert [error.message for error in validator.iter_errors(yaml.safe_load(path.read_text()))] == [], path


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("replicates: 4", "replicate: 5"),
        ("images: 512", "images: 0"),
        ("estimator: teacher", "estimator: tutor"),
        ("family: tiny-resnet", "family: resnet"),
        ("stages: [1, 2, 3]", "stages: []"),
    ],
)
def test_schema_refuses_what_the_models_refuse(root, old, new):
    """A schema that accepts everything would pass the test above."""
    text = (root / "config/demo.yaml").read_text()
    assert text.count(old) == 1
    validator = jsonschema.Draft202012Validator(json.loads(schema_text()))
    assert not validator.is_valid(yaml.safe_load(text.replace(old, new)))
    with pytest.raises(ValueError, match="1 validation error"):
        Config.model_validate(yaml.safe_load(text.replace(old, new)))


def test_manual_has_every_key_with_a_meaning():
    """A key without a docstring would be an empty cell that nobody notices."""
    schema = json.loads(schema_text())
    manual = manual_text()
    for model in (schema, *schema["$defs"].values()):
        for key, field in model["properties"].items():
            assert field.get("description"), f"{model['title']}.{key} has no docstring"
            assert f"\n| `{key}` | " in manual
    rows = [line for line in manual.splitlines() if line.startswith("| `")]
    assert len(rows) == sum(len(model["properties"]) for model in (schema, *schema["$defs"].values()))
    assert all(line.replace("\\|", "").count("|") == 5 for line in rows)


def test_links_of_the_manual_lead_somewhere():
    """A renamed model would leave dead links behind."""
    import re

    manual = manual_text()
    headings = {line[3:].lower().replace(" ", "-") for line in manual.splitlines() if line.startswith("## ")}
    assert set(re.findall(r"\]\(#([^)]+)\)", manual)) <= headings


def test_manual_shows_defaults_and_types():
    """Spot checks against the models as a reader reads them."""
    manual = manual_text()
    assert "| `images` | integer ≥ 1 | `512` | Number of images" in manual
    assert "| `backbone` | name | **required** | The backbone; each of its copies gets a FIM. |" in manual
    assert "| `strength` | list of number ≥ 0 | **required** |" in manual
    assert "Where: `backbones.NAME.pretraining.views`, `backbones.NAME.head.views`, `fims.NAME.views`." in manual
    assert "| `scene` | [Scene](#scene) | its own defaults |" in manual


def test_writing_is_deterministic(tmp_path):
    """A manual that changes from run to run could not be compared."""
    write_manual(tmp_path)
    first = (tmp_path / "README.md").read_bytes(), (tmp_path / "schema.json").read_bytes()
    write_manual(tmp_path)
    assert first == ((tmp_path / "README.md").read_bytes(), (tmp_path / "schema.json").read_bytes())
    assert Path(tmp_path / "schema.json").read_bytes().endswith(b"}\n")
