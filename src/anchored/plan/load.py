"""Reading the compiled plan. Engines call this while they parse, so it needs nothing but the standard library."""

import difflib
import json
from pathlib import Path
from typing import Any

from anchored.errors import ConfigError

SCHEMA = 1
KEYS = (
    "name",
    "seed",
    "threads",
    "datasets",
    "backbones",
    "pretrained",
    "completed",
    "imported",
    "fims",
    "whole",
    "merged",
    "shards",
    "experiments",
    "cells",
    "baseline",
    "anchored",
)
Plan = dict[str, Any]


def load_plan(path: Path) -> Plan:
    """Reads a compiled plan.

    Raises:
        ConfigError: the file is missing, is no JSON, has another schema number, or lacks a part.
    """
    try:
        plan = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing.", "run `anchored plan`, or pass --plan FILE.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", "pass --plan FILE.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}.", "run `anchored plan` to write it again.") from error
    if not isinstance(plan, dict) or plan.get("schema") != SCHEMA:
        found = plan.get("schema") if isinstance(plan, dict) else type(plan).__name__
        raise ConfigError(f"{path} has plan schema {found}, this version reads {SCHEMA}.", "run `anchored plan`.")
    missing = [key for key in KEYS if key not in plan]
    if missing:
        raise ConfigError(f"{path} is no whole plan: it lacks {', '.join(missing)}.", "run `anchored plan` to write it again.")
    return plan


def lookup(plan: Plan, kind: str, name: str) -> Any:
    """The entry `name` of the plan's map `kind` (datasets, backbones, fims, shards, cells, baseline, anchored).

    Raises:
        ConfigError: there is none; names the nearest one.
    """
    entries = plan[kind]
    if name in entries:
        return entries[name]
    near = difflib.get_close_matches(name, entries, n=1, cutoff=0.4)
    known = ", ".join(list(entries)[:8]) + (", ..." if len(entries) > 8 else "")
    hint = f"did you mean '{near[0]}'?" if near else f"the plan has: {known or 'none'}. Another plan: --plan FILE."
    raise ConfigError(f"'{name}' is not among the {kind} of the plan.", hint)


def lookup_run(plan: Plan, name: str) -> list[str]:
    """The cells of a job, or the one cell of that name.

    Raises:
        ConfigError: the plan has neither.
    """
    for kind in ("baseline", "anchored"):
        if name in plan[kind]:
            return list(plan[kind][name]["cells"])
    if name in plan["cells"]:
        return [name]
    jobs = {**plan["baseline"], **plan["anchored"], **plan["cells"]}
    near = difflib.get_close_matches(name, jobs, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'?" if near else "`anchored plan` lists the jobs it writes."
    raise ConfigError(f"'{name}' is neither a job nor a cell of the plan.", hint)
