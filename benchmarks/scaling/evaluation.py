"""How long tables take: `anchored evaluate` and `anchored tables` of a study of any size, from stand-in predictions."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from anchored.files import write_json
from anchored.paths import Paths
from scaling.predictions import write_study
from scaling.process import anchored, use
from scaling.study import plan_of


def tables(folder: Path, cells: int) -> dict[str, Any]:
    """Writes the predictions of so many cells, each in a file of its own, and makes the tables from them."""
    plan = plan_of(cells)
    write_json(folder / "plan.json", plan)
    write_study(plan, Paths(folder))
    files = list((folder / "results" / "runs").glob("*/predictions.parquet"))
    return {
        "cells": cells,
        "files": len(files),
        "bytes": sum(file.stat().st_size for file in files),
        "evaluate": asdict(use(anchored("evaluate"), folder)),
        "tables": asdict(use(anchored("tables"), folder)),
    }
