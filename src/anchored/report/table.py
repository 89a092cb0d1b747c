"""A table as data, and its three forms: Markdown to read, LaTeX to typeset, CSV to compute with.

Markdown and LaTeX print the same strings. The CSV holds the numbers behind them, to twelve decimals, and is the truth. No form
marks a winner: whether a difference is one is for its interval to say.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from polars import selectors
from tabulate import tabulate

from anchored.report.text import MINUS

_LATEX_SYMBOLS = {"±": r"$\pm$", "†": r"$\dagger$", MINUS: "$-$", "λ": r"$\lambda$"}
_LATEX_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Strings to print, the numbers behind them, and what a reader must know.

    Attributes:
        name: stem of its files.
        title: what it shows.
        caption: which statistics the columns hold, and in which unit.
        header: one name a column.
        rows: as many strings as columns.
        notes: sentences that stand below.
        values: the unrounded numbers.
        left: number of leading columns that hold text.
    """

    name: str
    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    values: pl.DataFrame
    left: int = 1

    def alignment(self) -> list[str]:
        """`left` or `right` for every column."""
        return ["left" if column < self.left else "right" for column in range(len(self.header))]


def markdown(table: Table) -> str:
    """The table as GitHub Markdown."""
    rows = [[cell.replace("|", r"\|") for cell in row] for row in table.rows]
    body = tabulate(rows, list(table.header), tablefmt="github", disable_numparse=True, colalign=table.alignment())
    notes = "\n".join(f"- {note}" for note in table.notes)
    return f"# {table.title}\n\n{table.caption}\n\n{body}\n\n{notes}\n"


def latex(table: Table) -> str:
    """The table as a LaTeX float; needs the packages booktabs and graphicx."""
    body = tabulate(
        table.rows, list(table.header), tablefmt="latex_booktabs", disable_numparse=True, colalign=table.alignment()
    )
    for symbol, command in _LATEX_SYMBOLS.items():
        body = body.replace(symbol, command)
    notes = " ".join(escape(note) for note in table.notes)
    return "\n".join(
        [
            "% needs \\usepackage{booktabs,graphicx}",
            r"\begin{table*}[t]",
            r"\centering",
            rf"\caption{{{escape(table.title)}. {escape(table.caption)}}}",
            rf"\label{{tab:{table.name}}}",
            r"\resizebox{\textwidth}{!}{%",
            body + "%",
            "}",
            rf"\par\smallskip\parbox{{\textwidth}}{{\footnotesize {notes}}}",
            r"\end{table*}",
            "",
        ]
    )


def csv(table: Table) -> str:
    """The numbers of the table to twelve decimals: beyond them the order in which a processor adds would show."""
    return table.values.with_columns(selectors.float().round(12)).write_csv()


def escape(text: str) -> str:
    """`text` for LaTeX."""
    escaped = "".join(_LATEX_SPECIAL.get(character, character) for character in text)
    for symbol, command in _LATEX_SYMBOLS.items():
        escaped = escaped.replace(symbol, command)
    return escaped


def index(entries: Sequence[tuple[str, str]], figures: Sequence[tuple[str, str]]) -> str:
    """The README of the tables folder: (file stem, title) of every table, (path, title) of every figure."""
    rows = [[title, f"[md]({name}.md)", f"[tex]({name}.tex)", f"[csv]({name}.csv)"] for name, title in entries]
    tables = tabulate(rows, ["table", "read", "typeset", "numbers"], tablefmt="github", disable_numparse=True)
    drawn = "\n".join(f"- [{title}]({path})" for path, title in figures) or "None."
    return (
        "# Tables\n\nWritten by `anchored tables` from stored per-image predictions; do not edit. The `.csv` files "
        f"hold the numbers to twelve decimals.\n\n{tables}\n\n# Figures\n\n{drawn}\n"
    )
