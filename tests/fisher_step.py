"""The miniature plan with other settings of its FIM `fim`, compiled as the command line would."""

from pathlib import Path
from typing import Any

import yaml

from anchored.plan.config import Config
from anchored.plan.expand import expand

MINI = Path(__file__).with_name("mini.yaml")


def rewritten(values: dict[str, Any]) -> dict[str, Any]:
    """The plan with these keys of `fims.fim` set."""
    config = yaml.safe_load(MINI.read_text())
    config["fims"]["fim"] |= values
    return expand(Config.model_validate(config))
