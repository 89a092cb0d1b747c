"""The command line: one command a step, no logic. Heavy imports happen inside the commands: `--help` stays fast."""

import typer

from anchored.cli import engines, fims, steps, studies

app = typer.Typer(
    help="Fine-tune self-supervised vision backbones without losing the worst group.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for commands in (studies, steps, fims, engines):
    app.add_typer(commands.app)


def main() -> None:
    """Entry point. An unexpected exception is a defect of this program and keeps its traceback."""
    app()
