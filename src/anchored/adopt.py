"""Handing a finished checkout from one engine to the other: `anchored adopt --from snakemake|dvc`.

    snakemake -> dvc    every output's record vouches for it; `dvc commit --force`; `dvc status` must be clean
    dvc -> snakemake    `dvc status` must be clean and the records intact; `snakemake --touch --forceall`; then
                        `snakemake --dry-run` must find nothing

Without it DVC would make everything again, for it knows only what stands in dvc.lock; Snakemake would find nothing to do, but
would also miss later changes of parameters, for it holds no metadata of files that it did not make.
"""

import json
import logging
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from anchored.doctor import engines, links
from anchored.doctor.finding import refuse
from anchored.errors import ConfigError, EnvironmentFailure, InputError
from anchored.paths import Paths
from anchored.plan.load import Plan
from anchored.programs import find_engine
from anchored.record import Step, planned_step
from anchored.steps import STEP_OF

log = logging.getLogger("anchored")

_NAMED = 5


def adopt(source: str, plan: Plan, plan_file: Path, paths: Paths) -> None:
    """Writes the bookkeeping of the engine that did not make the results.

    Raises:
        ConfigError: `source` is no engine, or the plan is not the one that dvc.yaml reads.
        InputError: results are missing or stale; says how many and names the first.
        EnvironmentFailure: an engine is not installed, works here at the moment, or failed; or results are links.
    """
    if source not in ("snakemake", "dvc"):
        raise ConfigError(f"'{source}' is no engine.", "use --from snakemake or --from dvc.")
    if plan_file.resolve() != (paths.root / "plan.json").resolve():
        raise ConfigError(f"dvc.yaml reads plan.json, not {plan_file}.", "adopt works on the results of plan.json only.")
    snakemake, dvc = find_engine("snakemake"), find_engine("dvc")
    refuse([*engines.busy(paths.root), *links.linked_cache(paths.root), *links.linked_results(paths.root)])
    if source == "snakemake":
        _require(plan, paths, Step.is_up_to_date, "run `snakemake` first.")
        _call([dvc, "commit", "--force"], paths.root)
        _require_clean(dvc, paths.root, "the commit left them changed; look at `dvc status`.")
        log.info("adopted: DVC has nothing to do. Commit dvc.lock to keep it so.")
    else:
        _require_clean(dvc, paths.root, "run `dvc repro` (or `dvc pull`) first.")
        # Some remotes are believed: a file that was damaged there is clean in DVC's eyes.
        _require(plan, paths, Step.is_intact, "their records tell other bytes: the remote is damaged.")
        _call([snakemake, "--cores", "1", "--touch", "--forceall"], paths.root)
        if "Nothing to be done" not in _call([snakemake, "--dry-run"], paths.root):
            raise InputError("Snakemake still has work to do after adopting.", "`snakemake --dry-run` says what and why.")
        log.info("adopted: Snakemake has nothing to do.")


def _require(plan: Plan, paths: Paths, vouched: Callable[[Step], bool], hint: str) -> None:
    steps = [(kind, name) for kind in STEP_OF for name in plan.get(kind, ["all"])]
    stale = [f"{STEP_OF[kind]} {name}" for kind, name in steps if not vouched(planned_step(plan, kind, name, paths))]
    _refuse_stale(stale, len(steps), hint)


def _require_clean(dvc: str, root: Path, hint: str) -> None:
    changed = json.loads(_call([dvc, "status", "--json"], root))
    total = len(_call([dvc, "stage", "list", "--name-only"], root).splitlines())
    _refuse_stale(sorted(changed), total, hint)


def _refuse_stale(stale: Sequence[str], total: int, hint: str) -> None:
    if stale:
        first = ", ".join(stale[:_NAMED]) + (f" and {len(stale) - _NAMED} more" if len(stale) > _NAMED else "")
        raise InputError(f"{len(stale)} of {total} steps have no up-to-date result: {first}.", hint)


def _call(command: Sequence[str], root: Path) -> str:
    """Runs an engine; returns what it printed. The log file keeps it all."""
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    log.debug("%s: exit code %d\n%s%s", " ".join(command), done.returncode, done.stdout, done.stderr)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        typed = " ".join([Path(command[0]).name, *command[1:]])
        raise EnvironmentFailure(f"`{typed}` failed: {said}", f"run it in {root.resolve()}.")
    return done.stdout
