"""Options of `anchored plan` that say something about costs."""

from anchored.errors import ConfigError


def refuse_ignored(costs: dict[str, bool], others: dict[str, bool], belonging: dict[str, bool]) -> None:
    """Raises ConfigError where `plan` got options that would be ignored: other tasks beside costs, or options of costs alone."""
    wanted = [name for name, given in costs.items() if given]
    wrong = [name for name, given in (others if wanted else belonging).items() if given]
    if wrong and wanted:
        raise ConfigError(f"plan cannot do {wrong[0]} together with {wanted[0]}.", "run them one after the other.")
    if wrong:
        raise ConfigError(f"plan: {wrong[0]} says something about costs only.", "add --cost, or leave it out.")
