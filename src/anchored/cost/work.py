"""What each job of a plan does, as amounts: operations, images, bytes. What that takes is the device's business.

| amount | of | unit |
| --- | --- | --- |
| matmul, convolution | a network, in a precision, by plain training or a way that is slower | floating-point operations |
| read | packed stores, wherever images are used | bytes |
| views | random views for pre-training and the Fisher | pixels |
| decode | image files, by each CPU of prepare | images |
| draw | scenes of DigitScenes, by prepare | images |
| state | resume states, merged sums and copied weights | bytes |
| fit | logistic regressions | values of features |
| rows | stored predictions, read by evaluate | lines |
| tables | experiments that get tables and figures | experiments |
| start | processes | processes |
| setup | steps that load a network | steps |
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from anchored import steps
from anchored.cost.flops import Flops, forward, head_forward, head_values, size, stem, training
from anchored.cost.images import Images, dataset_images
from anchored.paths import Paths
from anchored.plan.load import Plan, lookup

KINDS = ("datasets", "backbones", "whole", "shards", "merged", "baseline", "anchored")
# Exact values of the first images, for the error of the arithmetic, take an fp32 and a float64 pass; the latter costs 2 to 3 of the
# former on a CPU.
PRECISION_CHECK = 3.5
_FLOAT = 4
# Values that the optimiser keeps for each parameter.
_OPTIMIZER_VALUES = {"adamw": 2, "sgd": 1}
# Bytes of a stored prediction beside its logits, which hardly compress: the demo's files have 8.2 for two classes.
_PREDICTION_BYTES = 0.2


class What(NamedTuple):
    """What is done: one of the amounts above; for operations also their precision and the way they are run."""

    name: str
    precision: str = ""
    way: str = ""


Amounts = Counter[What]
Job = tuple[str, str]
"""Kind (a map of the plan, or evaluate, tables) and name."""


@dataclass(frozen=True)
class Work:
    """One job.

    Attributes:
        step: the row of the table it belongs to: its verb, for fine-tuning with the arm.
        experiment: the experiment it belongs to, if any.
        amounts: what it does.
        images: images that go through it.
        needs: the jobs whose outputs it reads.
        gpu: whether it asks for a GPU.
        disk: bytes of its outputs, by kind.
        resume: bytes of the state that it keeps while it runs.
    """

    step: str
    experiment: str | None
    amounts: Amounts
    images: int
    needs: frozenset[Job]
    gpu: bool
    disk: Mapping[str, int] = field(default_factory=dict)
    resume: int = 0


def plan_work(plan: Plan, paths: Paths) -> dict[Job, Work]:
    """Every job of the plan, in the order of its maps.

    Raises:
        ConfigError: an architecture is unknown, or a dataset's size is not known before it is prepared.
    """
    jobs: list[Job] = [(kind, name) for kind in KINDS for name in plan[kind]] + [("evaluate", ""), ("tables", "")]
    makers: dict[Path, Job] = {path: job for job in jobs for path in steps.outputs(*job, paths)}
    book = _Book(plan, paths)
    return {job: book.work(job, frozenset(makers[path] for path in steps.inputs(*job, plan, paths))) for job in jobs}


class _Book:
    """The plan with what several jobs ask for."""

    def __init__(self, plan: Plan, paths: Paths) -> None:
        self._plan, self._paths = plan, paths
        self._images: dict[str, Images] = {}

    def work(self, job: Job, needs: frozenset[Job]) -> Work:
        kind, name = job
        make = {
            "datasets": self._prepare,
            "backbones": self._backbone,
            "whole": self._fim,
            "shards": self._fim,
            "merged": self._merge,
            "baseline": self._finetune,
            "anchored": self._finetune,
            "evaluate": self._evaluate,
            "tables": self._tables,
        }[kind]
        made = make(kind, name, needs)
        made.amounts[What("start")] = 1
        if made.gpu:
            made.amounts[What("setup")] = 1
        return made

    def images(self, name: str) -> Images:
        if name not in self._images:
            self._images[name] = dataset_images(self._plan, name, self._paths)
        return self._images[name]

    # --- data and backbones ------------------------------------------------------------------------------------------------

    def _prepare(self, kind: str, name: str, needs: frozenset[Job]) -> Work:
        images = self.images(name)
        drawn = self._plan[kind][name]["reader"].startswith("digitscenes")
        # Image files are decoded by all CPUs of the process: under a scheduler those of the plan's threads.
        amounts = _amounts(draw=images.stored) if drawn else _amounts(decode=images.stored / self._plan["threads"])
        return Work("prepare", None, amounts, images.stored, needs, False, {"packed images": images.disk_bytes})

    def _backbone(self, kind: str, name: str, needs: frozenset[Job]) -> Work:
        entry = self._plan[kind][name]
        values = size(entry["architecture"])
        head = (entry["pretraining"] or entry["head"] or {}).get("dino")
        # Student and teacher are one network where it was imported without heads, which are two all the same.
        networks = 1 if entry["weights"] and (entry["head"] or {}).get("from") != "checkpoint" else 2
        heads = 2 * head_values(values.width, head) + head["prototypes"] if head else 0
        stored = _FLOAT * (networks * values.state + heads)
        disk = {"backbones": stored}
        if entry["pretraining"]:
            return Work("pretrain", None, *self._pretraining(entry), needs, True, disk)
        amounts, images = _amounts(state=2 * stored), 0
        if entry["head"]:
            found, images = self._head(entry)
            amounts += found
        return Work("import", None, amounts, images, needs, bool(entry["head"]), disk)

    def _pretraining(self, entry: Mapping[str, Any]) -> tuple[Amounts, int]:
        settings, architecture = entry["pretraining"], entry["architecture"]
        bank, probed = self.images(entry["bank"]), self.images(entry["probe"])
        batch, width = settings["batch"], size(architecture).width
        images = max(bank.stored // batch, 1) * min(batch, bank.stored) * settings["epochs"]
        views = _Views(settings["views"], bank.side)
        head = head_forward(width, settings["dino"])
        each = views.sum(training, architecture) + views.large(forward, architecture) + head * (3 * views.count + views.globals)
        amounts = _operations(each * images, "fp32", "pretrain")
        amounts += _amounts(read=images * bank.bytes_each, views=images * views.pixels)
        fitted = probed.splits.get("balanced", probed.splits.get("train", 0))
        # Random weights, student and teacher are probed.
        seen = 3 * (fitted + probed.splits.get("val", 0))
        amounts += _operations(forward(architecture, probed.side) * seen, "fp32") + _amounts(read=seen * probed.bytes_each)
        return amounts + _amounts(fit=3 * fitted * width), images

    def _head(self, entry: Mapping[str, Any]) -> tuple[Amounts, int]:
        """Re-estimating the centre on a few images, or training a head on the frozen backbone."""
        settings, architecture, bank = entry["head"], entry["architecture"], self.images(entry["head"]["bank"])
        views, head = _Views(settings["views"], bank.side), head_forward(size(architecture).width, settings["dino"])
        if settings["from"] == "checkpoint":
            images = min(settings["images"], bank.stored)
            each, pixels = views.large(forward, architecture) + head * views.globals, views.large_pixels
        else:
            images = bank.stored * settings["epochs"]
            each, pixels = views.sum(forward, architecture) + head * (3 * views.count + views.globals), views.pixels
        return _operations(each * images, "fp32") + _amounts(read=images * bank.bytes_each, views=images * pixels), images

    # --- the Fisher --------------------------------------------------------------------------------------------------------

    def _fim(self, kind: str, name: str, needs: frozenset[Job]) -> Work:
        shard = self._plan["shards"].get(name) if kind == "shards" else None
        entry = lookup(self._plan, "fims", shard["fim"] if shard else name)
        start, stop = (shard["start"], shard["stop"]) if shard else (0, entry["images"])
        backbone, bank = lookup(self._plan, "backbones", entry["backbone"]), self.images(entry["bank"])
        architecture, images = backbone["architecture"], stop - start
        head = (backbone["pretraining"] or backbone["head"] or {}).get("dino")
        views = _Views(entry["views"], bank.side)
        each, one = views.sum(training, architecture), Flops()
        if head:
            one = head_forward(size(architecture).width, head)
            # Gradients pass the head on their way, its weights get none.
            each += one * (2 * views.count)
        if entry["estimator"] == "teacher":
            each += views.large(forward, architecture) + one * views.globals
        way = "loop" if entry["backend"] == "loop" else "hooks"
        amounts = _operations(each * images, entry["precision"], way)
        if start == 0:
            amounts += _operations(each * (PRECISION_CHECK * min(entry["precision_check"], images)), "fp32", way)
        amounts += _amounts(read=images * bank.bytes_each, views=images * views.pixels)
        disk = {"FIMs": _FLOAT * size(architecture).parameters}
        return Work("fim", None, amounts, images, needs, True, disk)

    def _merge(self, kind: str, name: str, needs: frozenset[Job]) -> Work:
        entry = lookup(self._plan, "fims", name)
        stored = _FLOAT * size(lookup(self._plan, "backbones", entry["backbone"])["architecture"]).parameters
        amounts = _amounts(state=stored * (len(self._plan[kind][name]["shards"]) + 1))
        return Work("fim-merge", None, amounts, 0, needs, False, {"FIMs": stored})

    # --- fine-tuning -------------------------------------------------------------------------------------------------------

    def _finetune(self, kind: str, name: str, needs: frozenset[Job]) -> Work:
        cells = [self._plan["cells"][cell] for cell in self._plan[kind][name]["cells"]]
        first = cells[0]
        architecture = lookup(self._plan, "backbones", first["backbone"])["architecture"]
        data, values = self.images(first["dataset"]), size(architecture)
        amounts, images, resume, disk = _amounts(), 0, 0, Counter[str]()
        drawn, kept = set(), set()
        for cell in cells:
            if cell["arm"] == "linear-probe":
                seen = 0 if cell["draw"] in drawn else sum(data.splits[split] for split in ("train", "val", "test"))
                drawn.add(cell["draw"])  # the cells of a job share the features of a draw
                amounts += _operations(forward(architecture, data.side) * seen, "fp32") + _amounts(read=seen * data.bytes_each)
                amounts += _amounts(fit=data.splits["train"] * values.width)
                images += seen
            else:
                found, seen, state = self._training(cell, architecture, data)
                if cell["draw"] not in kept:
                    found += self._fixed(cell, architecture, data)
                    kept.add(cell["draw"])
                amounts, images, resume = amounts + found, images + seen, max(resume, state)
                if cell["training"]["save_models"]:
                    disk["models"] += _FLOAT * (values.state + (values.width + 1) * data.classes)
            disk["predictions"] += round(self._lines(cell, data) * (_FLOAT * data.classes + _PREDICTION_BYTES))
        return Work(f"finetune {first['arm']}", first["experiment"], amounts, images, needs, True, disk, resume)

    def _training(self, cell: Mapping[str, Any], architecture: Mapping[str, Any], data: Images) -> tuple[Amounts, int, int]:
        """Amounts, images and bytes of the largest resume state of a cell that trains."""
        setting, values = cell["training"], size(architecture)
        epochs = setting["epochs"]
        fixed = setting.get("frozen_stages")
        frozen = cell["hyper"]["stages"] if cell["arm"] == "freeze" else fixed
        trained = epochs * data.splits["train"]
        evaluated = epochs * data.splits["val"] + (epochs if setting["candidates"] == "every" else 1) * data.splits["test"]
        each = training(architecture, data.side, frozen=frozen) * trained + forward(architecture, data.side) * evaluated
        if fixed is not None:
            each += stem(architecture, data.side, fixed) * -(trained + evaluated)
        network = _FLOAT * (values.state + (values.width + 1) * data.classes)
        # An upper bound where stages are frozen. What is saved after the last epoch is the network alone.
        state = network + _OPTIMIZER_VALUES[setting["optimizer"]] * _FLOAT * values.parameters
        amounts = _operations(each, setting["precision"])
        amounts += _amounts(state=(epochs - 1) * state + network)
        if fixed is None:
            amounts += _amounts(read=(trained + evaluated) * data.bytes_each)
        return amounts, trained + evaluated, state

    def _fixed(self, cell: Mapping[str, Any], architecture: Mapping[str, Any], data: Images) -> Amounts:
        """What the stages that all arms leave fixed make of the images of a draw, once a job."""
        fixed = cell["training"].get("frozen_stages")
        if fixed is None:
            return _amounts()
        seen = sum(data.splits[split] for split in ("train", "val", "test"))
        return _operations(stem(architecture, data.side, fixed) * seen, "fp32") + _amounts(read=seen * data.bytes_each)

    def _lines(self, cell: Mapping[str, Any], data: Images) -> int:
        every = cell["arm"] != "linear-probe" and cell["training"]["candidates"] == "every"
        return (cell["training"]["epochs"] if every else 1) * (data.splits["val"] + data.splits["test"])

    # --- evaluation --------------------------------------------------------------------------------------------------------

    def _evaluate(self, kind: str, name: str, needs: frozenset[Job]) -> Work:
        lines = sum(self._lines(cell, self.images(cell["dataset"])) for cell in self._plan["cells"].values())
        return Work("evaluate", None, _amounts(rows=lines), 0, needs, False)

    def _tables(self, kind: str, name: str, needs: frozenset[Job]) -> Work:
        return Work("tables", None, _amounts(tables=len(self._plan["experiments"])), 0, needs, False)


class _Views:
    """The random views of an image: their number, pixels, and sums over them."""

    def __init__(self, policy: Mapping[str, Any], side: int) -> None:
        # A recipe without a size of its own makes large crops as large as the stored image.
        self.globals, self._locals = policy["global_crops"], policy["local_crops"]
        self._side, self._small = policy.get("global_size", side), policy["local_size"]
        self.count = self.globals + self._locals
        self.large_pixels = self.globals * self._side**2
        self.pixels = self.large_pixels + self._locals * self._small**2

    def large(self, count: Any, architecture: Mapping[str, Any]) -> Flops:
        """`count(architecture, side)` over the large crops."""
        return count(architecture, self._side) * self.globals

    def sum(self, count: Any, architecture: Mapping[str, Any]) -> Flops:
        """`count(architecture, side)` over all crops."""
        small = count(architecture, self._small) * self._locals if self._locals else Flops()
        return self.large(count, architecture) + small


def _amounts(**values: float) -> Amounts:
    """Amounts by name."""
    return Counter({What(name): value for name, value in values.items()})


def _operations(flops: Flops, precision: str, way: str = "") -> Amounts:
    kinds = {"matmul": flops.matmul, "convolution": flops.convolution}
    return Counter({What(name, precision, way): value for name, value in kinds.items() if value})

