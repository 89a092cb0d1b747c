"""Programs that talk to the network without being asked."""

from collections.abc import Iterator

from anchored.doctor.dvc_settings import settings
from anchored.doctor.finding import Finding, Patient, ok, warning

_SWITCHES = {"core.analytics": "sends usage statistics", "core.check_update": "asks for new versions"}


def check(patient: Patient) -> Iterator[Finding]:
    """DVC's statistics and its look for updates: on compute nodes without network they only cost time."""
    present = settings(patient.root)
    if present is None:
        yield warning("network", "DVC is not installed, or this is no folder of it: nothing was looked at.", "run `make install`.")
        return
    found = [f"{what} ({key})" for key, what in _SWITCHES.items() if present.get(key) != "false"]
    if found:
        yield warning(
            "network",
            f"DVC {' and '.join(found)}; a machine without network waits for it.",
            "`dvc config core.analytics false` and `dvc config core.check_update false`, also with --local and --global.",
        )
    else:
        yield ok("network", "DVC sends no statistics and looks for no updates")
