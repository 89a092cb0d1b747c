"""From a YAML file to a checked `Config`, with errors that name the file and the key."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from anchored.errors import ConfigError
from anchored.plan.config import Config

_MERGE = "tag:yaml.org,2002:merge"


class _StrictLoader(yaml.SafeLoader):
    """YAML without arbitrary objects and without duplicate keys, of which PyYAML would silently keep the last."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode, deep: bool = False) -> dict:
    seen = set()
    for key_node, _ in node.value:
        if key_node.tag == _MERGE:
            continue
        key = loader.construct_object(key_node, deep=deep)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is no text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"duplicate key '{key}'", key_node.start_mark)
        seen.add(key)
    # At once, children too: `<<` puts the merged keys beside a node's own, which would then look like duplicates.
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_config(path: Path) -> Config:
    """Reads and checks a configuration file.

    Raises:
        ConfigError: the file is missing, empty, no YAML, or breaks a rule of the models; names file and key.
    """
    try:
        text = path.read_text()
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing.", "pass --config FILE.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error
    try:
        value: Any = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        found = "empty" if value is None else f"a {type(value).__name__}"
        raise ConfigError(f"{path} is {found}, not a mapping of keys.", "see config/README.md for the keys.")
    try:
        return Config.model_validate(value)
    except ValidationError as error:
        raise ConfigError(_sentence(path, value, error), "see config/README.md for every key.") from error


def _sentence(path: Path, value: Any, error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        given = "" if isinstance(item["input"], dict) else f" (given: {item['input']!r})"
        said = item["msg"].removeprefix("Value error, ")
        if item["type"] == "missing" and len(item["loc"]) == 1:
            said = _advice(str(item["loc"][0]))
        lines.append(f"{path}: {_key(value, item)}: {said}{given}")
    return "\n".join(lines)


def _advice(key: str) -> str:
    """What to do about a missing part of the configuration."""
    if Config.model_fields[key].annotation is str:
        return f"is missing; add `{key}: NAME`."
    return f"is missing; add `{key}:` with an entry for each of them, or `{key}: {{}}` where there are none."


def _key(value: Any, item: Any) -> str:
    """The dotted path of an error in the file; pydantic's own path also names the chosen model of a union."""
    parts = []
    for part in item["loc"]:
        if isinstance(value, dict | list) and (part in value if isinstance(value, dict) else isinstance(part, int)):
            parts.append(str(part))
            value = value[part]
    if item["type"] == "missing":
        parts.append(str(item["loc"][-1]))
    return ".".join(parts) or "top level"
