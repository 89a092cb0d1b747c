"""The errors a user can meet: one sentence on what and where, one on what to do, one exit code.

| code | meaning |
| --- | --- |
| 0 | done, or nothing to do |
| 1 | steps of a run failed, each with a code of its own in its log |
| 2 | usage or configuration |
| 3 | missing or corrupt input |
| 4 | numerical failure (NaN, divergence) |
| 5 | environment (disk, memory, missing program) |

The command line prints `message` and `hint` on stderr; the traceback goes to the step's log file.
"""


class AnchoredError(Exception):
    """Base of every error whose text is written for the user.

    Args:
        message: what happened and where (file, key or parameter).
        hint: what to do about it; may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class StepsFailed(AnchoredError):
    """Steps of a run of many failed."""


class ConfigError(AnchoredError):
    """The configuration, the plan or the command line is wrong."""

    exit_code = 2


class InputError(AnchoredError):
    """A file that a step reads is missing, truncated, or belongs to something else."""

    exit_code = 3


class NumericalError(AnchoredError):
    """A number that has to be finite is not."""

    exit_code = 4


class EnvironmentFailure(AnchoredError):
    """The machine lacks disk, memory, a program or a permission."""

    exit_code = 5
