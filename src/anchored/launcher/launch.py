"""The order of things in `anchored run`: clear the ground, run Snakemake, continue after a breakdown, say what failed."""

import logging
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anchored.errors import AnchoredError, ConfigError, EnvironmentFailure, StepsFailed
from anchored.launcher import queue
from anchored.launcher.engine import Ending, Engine
from anchored.launcher.leftovers import end_jobs, make_known, unknown_results
from anchored.launcher.owner import Owner, owned
from anchored.launcher.story import Failure, Story, runs_of
from anchored.paths import Paths
from anchored.plan.load import load_plan
from anchored.processes import cpus
from anchored.programs import find_engine

log = logging.getLogger("anchored")

_NAMED = 10


@dataclass(frozen=True)
class Settings:
    """What the user asked for.

    Args:
        words: targets and options for Snakemake, as typed.
        plan: the plan's file, or None for Snakemake's default.
        profile: name of a folder in `profiles/`; empty for Snakemake's default.
        cores: how many; None for all of them, or, with a profile, for what it says.
        dry_run: only say what would be done.
        cancel: cancel the jobs of an earlier run instead of waiting for them.
        stall: minutes of silence without jobs in the queue that count as hanging.
        restarts: how often to continue after a breakdown.
    """

    words: Sequence[str] = ()
    plan: Path | None = None
    profile: str = ""
    cores: int | None = None
    dry_run: bool = False
    cancel: bool = False
    stall: float = 10.0
    restarts: int = 3


def launch(settings: Settings, paths: Paths) -> None:
    """Runs Snakemake in the folder of `paths` until it is done.

    Raises:
        StepsFailed: steps failed; names them with their logs.
        ConfigError: Snakemake refused to start; there is no such profile.
        EnvironmentFailure: another Snakemake runs here, it is not installed, or it broke down too often.
        KeyboardInterrupt: it was interrupted.
    """
    snakemake = find_engine("snakemake")
    command = [snakemake, *_options(settings, paths.root)]
    if settings.dry_run:
        code = subprocess.run([*command, "--dry-run", *settings.words], cwd=paths.root, check=False).returncode
        if code:
            raise ConfigError("Snakemake cannot plan this run.", "its message stands above.")
        return
    with owned(paths) as owner:
        owner.require_alone()
        for attempt in range(settings.restarts + 1):
            _clear(snakemake, settings, paths, owner)
            story = Story(paths.root)
            ending = Engine(paths.root, story, settings.stall * 60, log.warning).run([*command, *settings.words], owner.started)
            if ending.interrupted or not (ending.hung or ending.code < 0):
                if ending.code >= 0 and not ending.hung:
                    owner.ended()  # else the next start looks at what was left
                return _conclude(ending, story)
            log.warning("%s %s", _broken_down(ending, settings), f"It continues ({attempt + 1} of {settings.restarts})."
                        if attempt < settings.restarts else "")  # fmt: skip
        raise EnvironmentFailure(
            f"Snakemake broke down {settings.restarts + 1} times.",
            "finished steps are kept; when the cluster answers reliably, type the same command again.",
        )


def _options(settings: Settings, root: Path) -> list[str]:
    """Snakemake's options, ending in one that takes no value: targets follow."""
    options = _plan_options(settings)
    if settings.profile:
        folder = Path("profiles") / settings.profile
        if not (root / folder).is_dir():
            known = ", ".join(sorted(path.name for path in (root / "profiles").glob("*") if path.is_dir())) or "none"
            raise ConfigError(f"there is no profile {folder} in {root.resolve()}.", f"profiles here: {known}.")
        options += ["--workflow-profile", str(folder)]
    if settings.cores or not settings.profile:
        options += ["--cores", str(settings.cores or cpus())]
    return [*options, "--rerun-incomplete"]


def _plan_options(settings: Settings) -> list[str]:
    return ["--config", f"plan={settings.plan}"] if settings.plan else []


def _clear(snakemake: str, settings: Settings, paths: Paths, owner: Owner) -> None:
    """Makes the folder ready for a new Snakemake, whatever ended the last one."""
    owner.require_alone()
    note = owner.note
    broke_off = owner.locked or (note is not None and not note.ended)
    if owner.locked:
        owner.require_stale()
    end_jobs(runs_of(paths.root), log.info, cancel=settings.cancel, sure=broke_off)
    if owner.locked:
        log.info("Snakemake's lock is stale, for its owner was killed: unlocking.")
        _unlock(snakemake, settings, paths.root)
    if broke_off:
        found = unknown_results(load_plan(paths.root / (settings.plan or "plan.json")), paths.root)
        for torn in found.torn:
            log.info("%s is no whole result of its step: it is made again.", torn.relative_to(paths.root))
            torn.unlink()
        if found.vouched and make_known(snakemake, found.vouched, _plan_options(settings), paths.root):
            log.info("results of jobs that Snakemake had lost are kept: %d.", sum(map(len, found.vouched.values())))


def _unlock(snakemake: str, settings: Settings, root: Path) -> None:
    command = [snakemake, "--unlock", *_plan_options(settings)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EnvironmentFailure(f"`snakemake --unlock` failed: {said}", f"run it in {root.resolve()}.")


def _broken_down(ending: Ending, settings: Settings) -> str:
    if ending.hung:
        return (
            f"Snakemake said nothing for {settings.stall:g} minutes while none of its jobs was in SLURM's queue: it has lost "
            "track of them, as it does when the controller is away for a while. It was ended; what the jobs finished is kept."
        )
    return f"Snakemake was killed (signal {-ending.code}), perhaps for memory. Its jobs go on, and what they finish is kept."


def _conclude(ending: Ending, story: Story) -> None:
    """Says how it ended; returns where all went well."""
    if ending.interrupted:
        queue.cancel(queue.jobs_of([story.run] if story.run else []) or [])
        raise KeyboardInterrupt
    if ending.code == 0:
        return
    if story.failures:
        raise StepsFailed(*_summary(list(story.failures.values())))
    if story.finished:
        raise AnchoredError("Snakemake failed.", f"its message stands above and in {story.log}.")
    raise ConfigError("Snakemake did not start.", "its message stands above.")


def _summary(failures: list[Failure]) -> tuple[str, str]:
    lines = [f"{len(failures)} step{'s' * (len(failures) > 1)} failed; all others that could run are done."]
    for failure in failures[:_NAMED]:
        lines += [f"  {failure.rule}: {failure.why or 'no reason was given'}", f"    log: {failure.log}"]
    if len(failures) > _NAMED:
        lines.append(f"  and {len(failures) - _NAMED} more")
    advice = list(dict.fromkeys(failure.advice for failure in failures if failure.advice))
    again = "type the same command again: finished steps are kept, others continue."
    return "\n".join(lines), f"{'; '.join(advice)}; then {again}" if advice else again
