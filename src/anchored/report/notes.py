"""The sentences under a table: what was selected how, what the intervals leave out, and what the reader must not conclude."""

from collections.abc import Sequence

import polars as pl

from anchored.evaluate.groups import Groups
from anchored.evaluate.selection import SAME_LR, Rule, has_learning_rate, in_scope, varied
from anchored.evaluate.study import Experiment
from anchored.report.text import arm_name, number, seeds_text

MINIMUM_SEEDS = 5


def selection_notes(rule: Rule, groups: Groups) -> list[str]:
    """How the rule picks, and whether it knows more than its name says."""
    notes = [
        f"Configuration and epoch are picked per seed by the {rule.description}; ties go to the first in the plan's "
        "order."
    ]
    if rule.oracle:
        notes.append(
            "ORACLE: this rule looks at the test labels. It bounds what selection could gain and is not a result."
        )
    elif rule.metric == "average" and _balanced(groups.val_sizes) and not _balanced(groups.train_sizes):
        notes.append(
            "The validation split is balanced by group, unlike the training split: this rule, too, uses group labels."
        )
    return notes


def scope_notes(experiment: Experiment, scope: str, present: Sequence[str]) -> list[str]:
    """What competes in the table, which arms do not take part, and whether their grids differ in size."""
    counts = {arm: len(in_scope(experiment.arms[arm], scope, experiment.reference_lr)) for arm in present}
    notes = []
    if scope == SAME_LR:
        rate = number(experiment.reference_lr or 0.0)
        notes.append(
            f"Only configurations at learning rate {rate} compete. {arm_name(experiment.baseline)} may need a lower "
            "rate than anchored arms: a gain that exists here and not over the tuned baseline is a gain of the rate, "
            "not of the anchor."
        )
        rateless = [arm_name(arm) for arm in present if not has_learning_rate(experiment.arms[arm])]
        if rateless:
            notes.append(f"No learning rate, all configurations kept: {', '.join(rateless)}.")
        absent = [arm_name(arm) for arm in experiment.arms if arm not in present]
        if absent:
            notes.append(f"No configuration at that rate: {', '.join(absent)}.")
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{arm_name(arm)} {count}" for arm, count in counts.items())
        notes.append(f"Arms have unequal numbers of configurations ({listed}): a larger grid has more chances.")
    return notes


def edge_notes(edges: Sequence[tuple[str, str]], experiment: Experiment, scope: str) -> list[str]:
    """Explains the flags in the column `grid edge`; `edges` holds (arm, flags as text) of the flagged arms.

    Names the grid values, because an end of the grid may be a natural limit, which only a reader can know.
    """
    if not edges:
        return ["No pick lies at an end of its grid (hyper-parameters with two or more values are checked)."]
    sentences = []
    for arm, flags in edges:
        order = in_scope(experiment.arms[arm], scope, experiment.reference_lr)
        grid = varied([experiment.arms[arm].hyper[name] for name in order])
        values = "; ".join(f"{key} in {{{', '.join(map(number, seen))}}}" for key, seen in grid.items())
        sentences.append(f"{arm_name(arm)}: {flags} (grid: {values})")
    return [
        "† Picks at the low or high end of their grid, by number of seeds. The arm might do better beyond it, so "
        "comparisons may be unfair to it; of a grid of two values each is an end. " + ". ".join(sentences) + "."
    ]


def seed_notes(picks: pl.DataFrame) -> list[str]:
    """How many seeds stand behind the table and how independent they are."""
    seeds = picks.select("backbone", "replicate").n_unique()
    backbones = picks["backbone"].n_unique()
    checkpoints = f"checkpoint{'s' if backbones > 1 else ''}"
    notes = [f"{seeds_text(seeds)}: {backbones} pre-trained {checkpoints} times replicates (data draw and training order)."]
    if backbones < seeds:
        notes[0] = notes[0][:-1] + f"; seeds share {backbones} {checkpoints}, so the intervals understate the uncertainty."
    if seeds < MINIMUM_SEEDS:
        notes.append(f"Fewer than {MINIMUM_SEEDS} seeds: no claim should rest on this table.")
    return notes


def interval_note(draws: int) -> str:
    """What the intervals are, and that they do not contain the chance of the selection."""
    return (
        f"Intervals: 95 % percentile bootstrap, {draws} draws of seeds and of test images within groups, arms paired "
        "by seed and image, picks held fixed. An interval that includes 0 does not show a difference. Wins: seeds on "
        "which the arm is strictly better."
    )


def average_note(groups: Groups) -> str:
    """What the two averages are."""
    sizes = "; ".join(f"{name}: {size}" for name, size in zip(groups.names, groups.train_sizes, strict=True))
    return (
        f"Average: plain mean over test images. Adjusted average: groups weighted by their training images ({sizes})."
    )


def origin_notes(groups: Groups) -> list[str]:
    """Where the images come from and how they were cut, so that no table passes for one on another dataset."""
    notes = []
    source, cut = groups.source, groups.preprocessing
    if source:
        licences = f" ({', '.join(source['licences'])})" if source.get("licences") else ""
        more = "".join(f" {text.rstrip('.')}." for text in (source.get("counts"), source.get("note")) if text)
        notes.append(f"Source: {' '.join(filter(None, (source['name'], source.get('version'))))}{licences}.{more}")
    if cut:
        notes.append(f"Preprocessing: {cut['convention']} ({cut['steps']}).")
    return notes


def sanity_notes(picks: pl.DataFrame) -> list[str]:
    """Warns of picked models that predict one class for all test images, and tells how many picks a tie decided."""
    notes = []
    degenerate = picks.filter(pl.col("single_class"))
    if len(degenerate):
        arms = ", ".join(arm_name(arm) for arm in degenerate["arm"].unique(maintain_order=True))
        notes.append(f"WARNING: {len(degenerate)} picked models predict one class for every test image ({arms}).")
    tied = int((picks["ties"] > 1).sum())
    if tied:
        notes.append(f"In {tied} of {len(picks)} picks several candidates reached the best value of the criterion.")
    return notes


def _balanced(sizes: Sequence[int]) -> bool:
    return len(set(sizes)) == 1
