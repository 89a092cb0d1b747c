"""Writing the plan, and checking that it is what the configuration says."""

from itertools import zip_longest
from pathlib import Path

from anchored.errors import ConfigError
from anchored.files import json_text, write_text
from anchored.plan.expand import expand
from anchored.plan.load import Plan
from anchored.plan.read import read_config


def compile_plan(config: Path, out: Path) -> str:
    """Writes the plan of a configuration; returns a sentence on what it holds."""
    plan = expand(read_config(config))
    write_text(out, json_text(plan))
    return f"{out}: {summary(plan)}"


def check_plan(config: Path, out: Path) -> str:
    """Returns a sentence if the plan at `out` is that of the configuration.

    Raises:
        ConfigError: it is missing or differs; says how to write it.
    """
    command = f"run `anchored plan --config {config} --out {out}`."
    text = json_text(expand(read_config(config)))
    try:
        found = out.read_text(errors="replace")
    except FileNotFoundError as error:
        raise ConfigError(f"{out} is missing.", command) from error
    if found != text:
        pairs = enumerate(zip_longest(found.splitlines(), text.splitlines()), start=1)
        differing = next(number for number, (old, new) in pairs if old != new)
        raise ConfigError(f"{out} is not the plan of {config}: they differ from line {differing} on.", command)
    return f"{out} is the plan of {config}."


def summary(plan: Plan) -> str:
    """What the plan holds, in a line."""
    jobs = len(plan["baseline"]) + len(plan["anchored"])
    words = {"datasets": "dataset", "backbones": "backbone", "fims": "FIM", "cells": "cell"}
    return f"{', '.join(_counted(len(plan[key]), word) for key, word in words.items())} in {_counted(jobs, 'job')}"


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
