"""SLURM and containers: whether they are there, and usable."""

import re
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from anchored.doctor.finding import Finding, Patient, ok, warning
from anchored.programs import said

PLUGIN = "snakemake-executor-plugin-slurm"


def check(patient: Patient) -> Iterator[Finding]:
    """What jobs on a cluster, and steps inside of an image, need."""
    yield _slurm(patient)
    yield _apptainer(patient)


def _slurm(patient: Patient) -> Finding:
    if shutil.which("sbatch") is None:
        return ok("slurm", "no sbatch here: jobs run on this machine")
    try:
        plugin = metadata.version(PLUGIN)
    except metadata.PackageNotFoundError:
        return warning("slurm", f"sbatch is here, {PLUGIN} is not: Snakemake cannot submit jobs.", "run `make install`.")
    settings = said(["scontrol", "show", "config"], patient.root)
    if settings is None:
        return warning("slurm", "sbatch is here, but the controller does not answer.", "`scontrol ping` says more.")
    values = dict(line.split("=", 1) for line in settings.splitlines() if "=" in line)
    found = {key.strip(): value.strip() for key, value in values.items()}
    text = f"{found.get('ClusterName', 'SLURM')} answers, plugin {plugin}"
    accounts = not found.get("AccountingStorageType", "").endswith(("/none", "(null)"))
    if not accounts and shutil.which("sacct") and not _asks_squeue(patient.root):
        return warning(
            "slurm",
            f"{text}; it keeps no accounts, but the plugin asks `sacct` wherever that program is.",
            "set `slurm-status-command: squeue` in the profile; MinJobAge must then be 120 s or more "
            f"(here {found.get('MinJobAge', 'unknown')}).",
        )
    return ok("slurm", text)


def _asks_squeue(root: Path) -> bool:
    """Whether a profile of the checkout says so."""
    profiles = [file for folder in ("profiles", "workflow/profiles") for file in (root / folder).glob("*/*.yaml")]
    return any(re.search(r"^slurm-status-command:\s*[\"']?squeue", file.read_text(), re.MULTILINE) for file in profiles)


def _apptainer(patient: Patient) -> Finding:
    for program in ("apptainer", "singularity"):
        if shutil.which(program):
            version = said([program, "--version"], patient.root)
            if version is None:
                return warning("apptainer", f"{program} is here but does not run.", f"`{program} --version` says why.")
            return ok("apptainer", version)
    return ok("apptainer", "not installed; needed for `--sdm apptainer` only")
