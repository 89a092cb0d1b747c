"""results/report.html: one page without external files, with tables, figures and where everything came from.

Times and machines stand only here: the page is not compared byte by byte, tables and figures are.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import polars as pl

from anchored.report.page import TEMPLATE
from anchored.report.table import Table
from anchored.report.text import NOT_AVAILABLE, arm_name

_TRAINING = {
    "displacement": "displacement from the anchor",
    "gradient_ratio": "penalty / task gradient",
    "penalty": "penalty",
    "train_loss": "training loss",
}


@dataclass(frozen=True)
class Grid:
    """A table that stands on the page only."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    rule: str = ""


@dataclass(frozen=True)
class Drawing:
    """A figure on the page."""

    name: str
    caption: str
    svg: str


@dataclass(frozen=True)
class Section:
    """One experiment on the page."""

    name: str
    title: str
    note: str
    figures: tuple[Drawing, ...]
    tables: tuple[Table, ...]
    training: Grid


def page(*, title: str, plan_name: str, plan_digest: str, sections: Sequence[Section], provenance: Grid) -> str:
    """The whole page as HTML."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    rendered = environment.from_string(TEMPLATE).render(
        title=title, plan_name=plan_name, plan_digest=plan_digest, sections=sections, provenance=provenance
    )
    return rendered.lstrip()


def inline_svg(svg: str, name: str) -> str:
    """An SVG file for use inside a page: no XML prologue, and its element ids prefixed with `name`.

    Ids are shared by a whole page, and every figure calls its glyphs and clip paths alike.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', body)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)


def training_grid(picks: pl.DataFrame, history: pl.DataFrame, rule: str) -> Grid:
    """Mean ± sd over seeds of the training measures of each arm's picked models; empty where the history has none."""
    measures = [name for name in _TRAINING if name in history.columns]
    if not measures:
        return Grid((), ())
    joined = picks.select("arm", "cell", pl.col("epoch").cast(pl.Int64)).join(
        history.select("cell", pl.col("epoch").cast(pl.Int64), *measures),
        on=["cell", "epoch"],
        how="inner",
        maintain_order="left",
    )
    rows = []
    for (arm,), own in joined.group_by("arm", maintain_order=True):
        values = (own[name].drop_nulls().drop_nans() for name in measures)
        rows.append((arm_name(str(arm)), *(_spread(series) for series in values)))
    return Grid(("arm", *(_TRAINING[name] for name in measures)), tuple(rows), rule)


def provenance_grid(records: Mapping[str, Mapping[str, Any]]) -> Grid:
    """One row for every job's record: code, container image, libraries, device, time, memory. Missing keys stay empty."""
    rows = []
    for job, record in records.items():
        code = record.get("code") or {}
        libraries = ", ".join(f"{name} {version}" for name, version in (record.get("libraries") or {}).items())
        commit = str(code.get("commit") or "")[:10] + (" (modified)" if code.get("modified") else "")
        image = str((record.get("image") or {}).get("digest", "")).removeprefix("sha256:")[:10]
        memory = (record.get("peak_memory_mib") or {}).get("host", "")
        seconds = record.get("wall_seconds")
        rows.append(
            (job, f"{code.get('version', '')} {commit}".strip(), image, libraries, str(record.get("device", "")),
             "" if seconds is None else f"{seconds:.1f}", str(memory))
        )  # fmt: skip
    return Grid(("job", "code", "image", "libraries", "device", "seconds", "memory (MiB)"), tuple(rows))


def _spread(values: pl.Series) -> str:
    if values.is_empty():
        return NOT_AVAILABLE
    numbers = values.to_numpy()
    spread = f" ± {numbers.std(ddof=1):.3g}" if len(numbers) > 1 else ""
    return f"{numbers.mean():.3g}{spread}"
