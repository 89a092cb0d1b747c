"""The manual of every key and the JSON schema, both generated from the config models: nothing is documented twice.

    models (plan/config.py) -> JSON schema -> Markdown

The manual is rendered from the schema, so the two cannot disagree. Written by `anchored plan --manual`; a test compares the
committed files with what the models say.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anchored.files import json_text, write_text
from anchored.plan.config import Config

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]

_INTRODUCTION = """\
# The configuration

<!-- Generated from src/anchored/plan/config.py by `anchored plan --manual`. Change the models, not this file. -->

A configuration says what is compared with what. `anchored plan` compiles it into `plan.json`, which holds every default,
seed and identity; all other commands and both engines read the plan, never this file.

```yaml
name: demo            # what the report calls it
datasets: {...}       # labelled datasets, and unlabelled banks for pre-training and the Fisher
backbones: {...}      # networks, and where their weights come from
fims: {...}           # Fisher information matrices: of which backbone, on which bank, under which loss
experiments: {...}    # comparisons: a dataset, a backbone, a FIM, the arms and their grids
```

The four maps name their entries as you like (`[a-z0-9-]`), and entries refer to each other by these names: a bank to the
dataset whose digits it shares, a backbone to its bank, a FIM to its backbone, an experiment to all three.

- **Write only what differs from the defaults** below; the compiled plan shows the rest. `demo.yaml` is an example.
- **A mistake is an error** that names the file, the key and the nearest valid key; nothing is ignored.
- **After a change** run `anchored plan [--config FILE] [--out FILE]` and commit both files. `anchored plan --check` writes
  nothing and fails if the plan is not that of the configuration.
- Adding a grid point, an arm or a replicate leaves the identity and the seed of every other cell as it is, so their results
  stay valid. Seeds come from dataset, backbone and replicate alone: arms are paired by them.
- Every point of an arm's grid is a configuration; give all arms the same number, or the selection favours the larger grid.
- Editors that read `schema.json` (a comment on the first line of a configuration names it) complete keys and mark mistakes.
"""


def schema_text() -> str:
    """The JSON schema (2020-12) of a configuration file."""
    return json_text(_schema())


def manual_text() -> str:
    """The manual of every key as Markdown: one section a model, one line a key."""
    schema = _schema()
    places: dict[str, list[str]] = {}
    for name, place in _places(schema):
        places.setdefault(name, []).append(place)
    sections = [_section("Top level", schema, ["the file itself"])]
    sections += [_section(name, schema["$defs"][name], [f"`{place}`" for place in found]) for name, found in places.items()]
    return "\n".join([_INTRODUCTION, *sections])


def write_manual(folder: Path) -> str:
    """Writes `README.md` and `schema.json` into `folder`; returns a sentence that names them."""
    manual, schema = folder / "README.md", folder / "schema.json"
    write_text(manual, manual_text())
    write_text(schema, schema_text())
    return f"wrote {manual} and {schema}."


def _schema() -> Schema:
    return {"$schema": DIALECT, **Config.model_json_schema(by_alias=True)}


def _places(schema: Schema) -> Iterator[tuple[str, str]]:
    """Each model below the top level with each key path where it is used, in the order in which a reader meets them."""

    def walk(model: Schema, path: str) -> Iterator[tuple[str, str]]:
        for key, field in model["properties"].items():
            for name, suffix in _models(field):
                place = f"{path}{key}{suffix}"
                yield name, place
                yield from walk(schema["$defs"][name], f"{place}.")

    yield from walk(schema, "")


def _models(field: Schema) -> Iterator[tuple[str, str]]:
    """Names of the models that a field may hold, each with `.NAME` where the field maps names to them."""
    if "$ref" in field:
        yield _name(field), ""
    for option in field.get("anyOf", []) + field.get("oneOf", []):
        yield from _models(option)
    for option in (field.get("additionalProperties"), *field.get("patternProperties", {}).values()):
        if isinstance(option, dict):
            yield from ((name, f".NAME{suffix}") for name, suffix in _models(option))


def _section(title: str, model: Schema, places: list[str]) -> str:
    lines = [f"## {title}", "", _words(model["description"]), "", f"Where: {', '.join(places)}.", ""]
    lines += ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for key, field in model["properties"].items():
        default = "**required**" if key in model.get("required", []) else _default(field)
        lines.append(_row(f"`{key}`", _type(field), default, _words(field.get("description", ""))))
    return "\n".join([*lines, ""])


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _words(text: str) -> str:
    return " ".join(text.split())


def _default(field: Schema) -> str:
    value = field.get("default")
    if value is None:
        return "none"
    if isinstance(value, dict):
        return "its own defaults"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _type(field: Schema) -> str:
    """The type of a field in words, from its schema."""
    options = [option for option in field.get("anyOf", []) + field.get("oneOf", []) if option.get("type") != "null"]
    if options:
        return " or ".join(_type(option) for option in options)
    if "$ref" in field:
        return f"[{_name(field)}](#{_name(field).lower()})"
    if "const" in field or "enum" in field:
        return " or ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    match field.get("type"):
        case "array":
            return _list(field)
        case "object":
            values = [*field.get("patternProperties", {}).values(), field.get("additionalProperties")]
            return "map of names to " + _type(next(value for value in values if isinstance(value, dict)))
        case "boolean":
            return "true or false"
        case "integer" | "number":
            return field["type"] + _range(field)
        case "string" if field.get("pattern", "").startswith("^[a-z0-9]+"):
            return "name"
    return "text"


def _list(field: Schema) -> str:
    items = [_type(item) for item in field.get("prefixItems", [])]
    if not items:
        return f"list of {_type(field['items'])}"
    return f"list of {len(items)}: {items[0]} each" if len(set(items)) == 1 else f"list of {', '.join(items)}"


def _range(field: Schema) -> str:
    bounds = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
    found = [f"{sign} {field[key]:g}" for key, sign in bounds if key in field]
    return f" {', '.join(found)}" if found else ""


def _name(field: Schema) -> str:
    return str(field["$ref"]).rsplit("/", 1)[-1]
