"""The steps `fim` and `fim-merge`: the diagonal Fisher of a backbone on the first images of a bank's seeded order.

A FIM is measured whole, or in shards: ranges of its images, each a job of its own, whose sums `fim-merge` adds. Either way a killed
process continues after the last batches it had saved, with the same result as an undisturbed one.
"""

import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from anchored.data.feed import Feed, default_depth
from anchored.device import choose_device, describe, limit_threads
from anchored.errors import ConfigError, InputError
from anchored.files import write_text
from anchored.fisher.card import card
from anchored.fisher.diagonal import Backend, DiagonalFisher
from anchored.fisher.io import save_fisher
from anchored.fisher.measurement import Measurement, planned_facts
from anchored.fisher.precision import in_words, relative_errors, standard_errors
from anchored.fisher.shards import Part, load_part, merge_parts, save_part
from anchored.fisher.statistics import statistics
from anchored.paths import Paths
from anchored.plan.load import Plan, lookup
from anchored.progress import progress
from anchored.record import Running, planned_step

SAVE_EVERY = 60.0
"""Seconds between two savings of the sums: what a killed process loses at most."""

log = logging.getLogger("anchored")


def fim(plan: Plan, name: str, paths: Paths, *, shard: str | None = None, fallback: str | None = None, force: bool = False) -> None:
    """Measures the FIM `name` of the plan into `results/fim/<name>/`: one of its shards, or all of it.

    Args:
        plan: the compiled plan.
        name: identity of the FIM.
        paths: the folder layout.
        shard: "I/N" measures the I-th of the plan's N ranges of images into `results/shards/`; `fim_merge` adds them.
        fallback: "loop" takes the loop where the plan asks for hooks and a parameter has no rule.
        force: measure again what is up to date.

    Raises:
        ConfigError: no such FIM, shard or fallback.
    """
    lookup(plan, "fims", name)
    if fallback not in (None, "loop"):
        raise ConfigError(f"there is no fallback '{fallback}'.", "use --fallback loop.")
    if shard is not None:
        _measure_shard(plan, _shard_name(plan, name, shard), paths, fallback, force)
    elif name in plan["merged"]:
        for each in plan["merged"][name]["shards"]:
            _measure_shard(plan, each, paths, fallback, force)
        fim_merge(plan, name, paths, force=force)
    else:
        _measure_whole(plan, name, paths, fallback, force)


def fim_merge(plan: Plan, name: str, paths: Paths, *, force: bool = False) -> None:
    """Adds the shards of the FIM `name`, in the order of their images, into `results/fim/<name>/`.

    Raises:
        ConfigError: the plan measures this FIM whole.
        InputError: shards are missing, overlap, or come from different measurements.
    """
    lookup(plan, "fims", name)
    if name not in plan["merged"]:
        raise ConfigError(f"fims.{name} has one shard, there is nothing to merge.", f"run `anchored fim {name}`.")
    with planned_step(plan, "merged", name, paths).run(force=force) as running:
        if not running:
            return
        files = [paths.shard(shard) / "sums.safetensors" for shard in plan["merged"][name]["shards"]]
        fisher, facts, errors = merge_parts({path: load_part(path) for path in files})
        _require_planned(name, lookup(plan, "fims", name), fisher, facts)
        _publish(name, fisher, facts, errors, paths, running)


def _require_planned(name: str, entry: Mapping[str, Any], fisher: DiagonalFisher, facts: Mapping[str, str]) -> None:
    different = sorted(key for key, value in planned_facts(entry).items() if facts.get(key) != value)
    different += ["images"] if fisher.count != entry["images"] else []
    if different:
        raise InputError(
            f"the shards of {name} are not those of the plan: they differ in {', '.join(different)}.", f"run `anchored fim {name}`."
        )


def _shard_name(plan: Plan, name: str, shard: str) -> str:
    shards = {plan["shards"][each]["shard"]: each for each in plan["merged"].get(name, {"shards": []})["shards"]}
    if shard not in shards:
        known = f"the plan has {', '.join(shards)}" if shards else f"run `anchored fim {name}`"
        raise ConfigError(f"fims.{name} has no shard {shard}.", f"{known}, or change fims.{name}.shards.")
    return shards[shard]


def _measure_whole(plan: Plan, name: str, paths: Paths, fallback: str | None, force: bool) -> None:
    with planned_step(plan, "whole", name, paths).run(force=force) as running:
        if running:
            entry = lookup(plan, "fims", name)
            part = _measure(plan, name, entry["images"], (0, entry["images"]), paths, running, fallback)
            _publish(name, part.fisher, part.facts, part.precision_errors, paths, running)
    _forget(paths, name)


def _measure_shard(plan: Plan, shard: str, paths: Paths, fallback: str | None, force: bool) -> None:
    with planned_step(plan, "shards", shard, paths).run(force=force) as running:
        if running:
            entry = plan["shards"][shard]
            part = _measure(plan, shard, entry["images"], (entry["start"], entry["stop"]), paths, running, fallback)
            save_part(paths.shard(shard) / "sums.safetensors", part)
            running.measure(start=part.start, stop=part.stop, count=part.fisher.count)
    _forget(paths, shard)


def _measure(
    plan: Plan, name: str, total: int, images: tuple[int, int], paths: Paths, running: Running, fallback: str | None
) -> Part:
    """The sums over a range of images of the FIM or shard `name`, continued from what a killed process had saved."""
    start, stop = images
    fim = plan["shards"][name]["fim"] if name in plan["shards"] else name
    entry = lookup(plan, "fims", fim)
    limit_threads(entry["threads"])
    device = choose_device()
    running.device = describe(device)
    measurement = Measurement(plan, fim, paths, device)
    state = _Saved(_state(paths, name), Part(_NOTHING, measurement.facts | {"key": running.key}, start, stop, total, {}))
    before = state.load()
    done = before.count if before else 0
    feed = Feed(measurement.batches(start + done, stop), depth=default_depth(device), device=device)
    started = time.perf_counter()
    with progress(f"fim {name}", stop - start) as advance:
        advance(done)
        seen = done

        def on_batch(fisher: DiagonalFisher) -> None:
            nonlocal seen
            advance(fisher.count - seen)
            seen = fisher.count
            state.save_now_and_then(fisher)

        backend: Backend | None = "auto" if fallback == "loop" and entry["backend"] == "hooks" else None
        fisher = measurement.fisher(start, stop, backend=backend, batches=feed, before=before, on_batch=on_batch)
    running.measure(images_before_a_restart=done, **_speeds(name, feed, time.perf_counter() - started))
    errors = _precision_errors(plan, fim, measurement, paths, device) if start == 0 else {}
    log.info("fim %s: %s (%s)", name, fisher.backend, fisher.reason)
    return Part(fisher, measurement.facts, start, stop, total, errors)


def _speeds(name: str, feed: Feed[Any], seconds: float) -> dict[str, float]:
    """Images a second of the loader alone, of the Fisher alone and of both together, which says which of them waits."""
    alone = seconds - feed.waited_seconds
    speeds = {
        "images_per_second": feed.images / seconds if seconds else 0.0,
        "loader_images_per_second": feed.images_per_second,
        "fisher_images_per_second": feed.images / alone if alone > 0 else 0.0,
    }
    speeds = {key: round(value, 1) for key, value in speeds.items()}
    log.info("fim %s: %s images/s; the loader alone makes %s, the Fisher alone takes %s", name, *speeds.values())
    return speeds | {"waited_for_loader_seconds": round(feed.waited_seconds, 3)}


def _precision_errors(plan: Plan, fim: str, measured: Measurement, paths: Paths, device: torch.device) -> dict[str, float]:
    """The error of the arithmetic on the first images; of an estimate too it is that of the arithmetic."""
    count = min(measured.entry["precision_check"], len(measured.rows))
    if not count:
        return {}
    exact = Measurement(plan, fim, paths, device, dtype=torch.float64)
    return relative_errors(measured.fisher(0, count, backend="auto"), exact.fisher(0, count, backend="auto"))


def _publish(
    name: str, fisher: DiagonalFisher, facts: Mapping[str, str], errors: Mapping[str, float], paths: Paths, running: Running
) -> None:
    """Writes the Fisher and its card, and what the record says about them."""
    summary = statistics(fisher)
    said = dict(facts)
    if errors:
        said["error of the arithmetic"] = f"against float64, on the first images: {in_words(errors)}"
        running.measure(precision_errors=dict(errors))
    if fisher.relative_errors:
        said["error of the estimate"] = standard_errors(fisher)
        log.info("fim %s: %s", name, said["error of the estimate"])
        running.measure(relative_standard_errors=fisher.relative_errors)
    save_fisher(paths.fim(name) / "fim.safetensors", fisher, metadata=facts)
    write_text(paths.fim(name) / "card.md", card(name, said, fisher, summary))
    running.measure(
        **facts,
        count=fisher.count,
        backend=fisher.backend,
        backend_reason=fisher.reason,
        trace=summary.trace,
        effective_rank=summary.effective_rank,
    )


_NOTHING = DiagonalFisher({}, 0, "")


def _state(paths: Paths, name: str) -> Path:
    return paths.work("fim") / name / "sums.safetensors"


def _forget(paths: Paths, name: str) -> None:
    """Removes the sums so far; not before the record vouches for the result, or a kill in between would cost all of them."""
    shutil.rmtree(_state(paths, name).parent, ignore_errors=True)


class _Saved:
    """The sums so far, in a file that no engine declares."""

    def __init__(self, path: Path, part: Part) -> None:
        self._path = path
        self._part = part
        self._last = time.monotonic()

    def load(self) -> DiagonalFisher | None:
        """What a killed process left behind for the same entry, inputs and code."""
        try:
            found = load_part(self._path)
        except InputError as error:
            if self._path.exists():  # an unreadable state only costs time
                log.warning("%s; the measurement starts from its first image", error.message)
            return None
        if found.facts != self._part.facts or (found.start, found.stop) != (self._part.start, self._part.stop):
            log.info("%s belongs to another plan, input or code; the measurement starts from its first image", self._path)
            return None
        return found.fisher

    def save_now_and_then(self, fisher: DiagonalFisher) -> None:
        """Writes the sums if the last time was long ago."""
        if time.monotonic() - self._last >= SAVE_EVERY:
            part = self._part
            save_part(self._path, Part(fisher, part.facts, part.start, part.stop, part.total, {}))
            self._last = time.monotonic()
