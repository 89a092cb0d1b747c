"""The step `fim`: the diagonal Fisher of a backbone on the first images of a bank's seeded order."""

import time

from anchored.device import choose_device, describe, limit_threads
from anchored.files import write_text
from anchored.fisher.card import card
from anchored.fisher.diagonal import diagonal_fisher
from anchored.fisher.io import save_fisher
from anchored.fisher.measurement import Measurement
from anchored.fisher.statistics import statistics
from anchored.paths import Paths
from anchored.plan.load import Plan, lookup
from anchored.progress import progress
from anchored.record import planned_step


def fim(plan: Plan, name: str, paths: Paths, *, force: bool = False) -> None:
    """Measures the FIM `name` of the plan into `results/fim/<name>/`."""
    entry = lookup(plan, "fims", name)
    with planned_step(plan, "fims", name, paths).run(force=force) as running:
        if not running:
            return
        limit_threads(entry["threads"])
        device = choose_device()
        running.device = describe(device)
        measurement = Measurement(plan, name, paths, device)
        started = time.perf_counter()
        with progress(f"fim {name}", entry["images"]) as advance:
            seen = 0

            def on_batch(count: int) -> None:
                nonlocal seen
                advance(count - seen)
                seen = count

            fisher = diagonal_fisher(
                measurement.model, measurement.batches(), measurement.loss, backend=entry["backend"], on_batch=on_batch
            )
        seconds = time.perf_counter() - started
        summary = statistics(fisher)
        save_fisher(paths.fim(name) / "fim.safetensors", fisher, metadata=measurement.facts)
        write_text(paths.fim(name) / "card.md", card(name, measurement.facts, fisher, summary))
        running.measure(
            **measurement.facts,
            count=fisher.count,
            backend=fisher.backend,
            backend_reason=fisher.reason,
            trace=summary.trace,
            effective_rank=summary.effective_rank,
            images_per_second=round(fisher.count / seconds, 1),
        )
