"""The configuration a user writes, as typed models. The only place with a default.

`config/schema.json` and `config/README.md` are generated from these models (`anchored plan --manual`); a test compares them.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from anchored.plan.architectures import Architecture
from anchored.plan.arms import ANCHORED_ARMS, Arm, Arms
from anchored.plan.base import Count, Finite, Fraction, Identifier, NonNegative, Positive, Section
from anchored.plan.datasets import BANKS, LABELLED_FILES, Dataset, DigitBank, DigitScenes, TrainingImages, multi_label
from anchored.plan.preprocessing import Augmentation
from anchored.plan.views import DinoViews, SceneViews, Views


class DinoLoss(Section):
    """Self-distillation without labels (Caron et al. 2021)."""

    weight: NonNegative = 1.0
    """Weight in the sum of losses."""
    layers: Count = 3
    """Linear layers of the head before its outputs."""
    hidden: Count = 128
    """Width of the head's hidden layers."""
    batch_norm: bool = True
    """BatchNorm after each hidden layer."""
    bottleneck: Count = 32
    """Width of the head's bottleneck."""
    prototypes: Count = 128
    """Number of outputs."""
    normalised: bool = True
    """Outputs are cosines: each prototype has norm 1 (weight normalisation with its length fixed at 1)."""
    student_temperature: Positive = 0.1
    """Temperature of the student's softmax."""
    teacher_temperature: Positive = 0.04
    """Temperature of the teacher's softmax."""
    centre_momentum: Fraction = 0.9
    """Momentum of the centre of the teacher's outputs."""
    teacher_momentum: Fraction = 0.97
    """First value of the teacher's momentum; it rises to 1 along a cosine."""


class InfoNceLoss(Section):
    """Contrast of the two large crops among the images of a batch (van den Oord et al. 2018, Chen et al. 2020)."""

    weight: tuple[NonNegative, NonNegative] = (0.0, 0.0)
    """First and last weight in the sum of losses, linear in between; 0 leaves it out."""
    temperature: Positive = 0.2
    """Temperature of the similarities."""


class Pretraining(Section):
    """Self-supervised training from random weights on an unlabelled bank."""

    bank: Identifier
    """The unlabelled dataset."""
    probe: Identifier
    """The labelled dataset (splits balanced and val) on which the record's linear and k-NN probes are made."""
    views: Views = SceneViews()
    """The random views."""
    dino: DinoLoss = DinoLoss()
    """Self-distillation term."""
    infonce: InfoNceLoss = InfoNceLoss()
    """Contrastive term."""
    epochs: Count = 14
    """Passes over the bank."""
    batch: Annotated[int, Field(ge=2)] = 128
    """Images of a step."""
    lr: Positive = 3e-3
    """Peak learning rate of AdamW."""
    warmup: Fraction = 0.1
    """Share of the steps with a rising learning rate; a cosine follows."""
    weight_decay: NonNegative = 0.04
    """Weight decay of matrices and filters; vectors get none."""
    clip: Positive = 3.0
    """Largest norm of the gradient."""


class Import(Section):
    """Weights that somebody else trained."""

    checkpoint: str | None = None
    """A local file (.safetensors, or .pth/.pt that holds tensors only), relative to the root folder: a trunk in timm's or the
    published layout, or a full DINO checkpoint with student, teacher and heads."""
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """SHA-256 that the file must have. The record has the one it had."""
    timm: bool = False
    """Take timm's own weights of the architecture's name (needs a network on the first run)."""
    source: str | None = None
    """What the weights are, in words, for tables and cards; the file's or timm's name where it is left out."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.checkpoint is None) == (not self.timm):
            raise ValueError("give either checkpoint: FILE or timm: true")
        return self


class SslHead(Section):
    """Completes an imported backbone with the SSL loss that a Fisher needs: projection heads, their teacher and the centre."""

    bank: Identifier
    """The unlabelled dataset that the head is trained on, or the centre estimated."""
    origin: Annotated[Literal["checkpoint", "trained"], Field(alias="from")]
    """checkpoint: the heads of the file, whose sizes `dino` has to repeat; trained: fresh heads, trained on the frozen backbone."""
    views: Views = DinoViews(recipe="dino")
    """The random views."""
    dino: DinoLoss = DinoLoss()
    """Sizes of the heads and the loss."""
    images: Count = 2048
    """from checkpoint: images, two large crops each, whose mean output is the centre where the file has none."""
    epochs: Count = 10
    """from trained: passes over the bank."""
    batch: Annotated[int, Field(ge=2)] = 64
    """Images of a step."""
    lr: Positive = 1e-3
    """from trained: peak learning rate of AdamW."""
    warmup: Fraction = 0.1
    """from trained: share of the steps with a rising learning rate; a cosine follows."""
    weight_decay: NonNegative = 0.04
    """from trained: weight decay of matrices; vectors get none."""
    clip: Positive = 3.0
    """from trained: largest norm of the gradient."""


class Backbone(Section):
    """A network without a classifier, and where its weights come from."""

    architecture: Architecture
    """The network."""
    pretraining: Pretraining | None = None
    """Train it here, or"""
    weights: Import | None = None
    """import it."""
    head: SslHead | None = None
    """The SSL loss of an imported backbone; without it there is no FIM of it."""
    copies: Count = 1
    """Independent pre-trainings; their identities end in -1, -2, ..."""
    anchor: Literal["student", "teacher"] = "student"
    """The network that fine-tuning starts from. The average of a short pre-training lags behind its student."""
    mean: tuple[Finite, Finite, Finite] | None = None
    """Mean of the input's channels, subtracted. Left out: 0.5; with timm's architectures that of timm's weights of this name."""
    std: tuple[Positive, Positive, Positive] | None = None
    """Standard deviation of the input's channels, divided by. Left out: 0.25; with timm's architectures as for `mean`."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.pretraining is None) == (self.weights is None):
            raise ValueError("give either pretraining or weights")
        if self.weights is not None and self.copies > 1:
            raise ValueError("copies > 1 needs pretraining: imported weights are one backbone")
        if self.weights is not None and self.weights.timm and self.architecture.family != "timm":
            raise ValueError("weights.timm needs an architecture of family timm")
        if self.head is not None and self.weights is None:
            raise ValueError("head belongs to imported weights: pretraining has a head of its own")
        if self.weights is not None and self.weights.timm and self.head is not None and self.head.origin == "checkpoint":
            raise ValueError("head.from: checkpoint needs weights.checkpoint: timm's weights come without SSL heads")
        one_network = self.weights is not None and (self.weights.timm or (self.head is not None and self.head.origin == "trained"))
        if one_network and self.anchor == "teacher":
            raise ValueError("anchor: teacher needs pretraining or a full checkpoint: the imported weights are one network")
        return self

    @property
    def has_loss(self) -> bool:
        """Whether it has an SSL loss, and so can have a FIM."""
        return self.pretraining is not None or self.head is not None


class Fim(Section):
    """A diagonal Fisher information matrix of a backbone under its SSL loss."""

    backbone: Identifier
    """The backbone; each of its copies gets a FIM."""
    bank: Identifier
    """The unlabelled dataset."""
    images: Count = 512
    """Number of images, the first of the bank's seeded order."""
    objective: Literal["dino"] = "dino"
    """The SSL loss; terms that couple the images of a batch (InfoNCE) have no Fisher per image."""
    estimator: Literal["teacher", "sampled"] = "teacher"
    """teacher: soft targets, the squared SSL gradient; sampled: labels drawn from the model's own prediction, the true Fisher."""
    backend: Literal["auto", "hooks", "loop", "signs"] = "auto"
    """hooks: batched and exact; loop: one image a backward pass, the reference; auto: hooks where every parameter has a rule, else
    loop; signs: an unbiased estimate for any model at the price of training, its standard error in the record."""
    views: Views = SceneViews()
    """The random views; all views of an image are joined before the square."""
    batch: Count = 64
    """Images of a pass; changes the speed, and the result by rounding only."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """Arithmetic of the backbone; heads, loss and sums stay in fp32. tf32 needs an NVIDIA GPU."""
    precision_check: Annotated[int, Field(ge=0)] = 8
    """Images that are measured in float64 too, which gives the error of each tensor; 0: none."""
    shards: Count = 1
    """Ranges of images that are jobs of their own; their sums are added in a fixed order. Changes the result by rounding only."""

    @model_validator(mode="after")
    def _shards_have_images(self) -> Self:
        batches = -(-self.images // self.batch)
        if self.shards > batches:
            raise ValueError(f"shards is {self.shards}, but {self.images} images are {batches} batches of {self.batch}; lower one")
        return self


class Training(Section):
    """What all arms of an experiment share in fine-tuning."""

    epochs: Count = 8
    """Passes over the training split."""
    batch: Annotated[int, Field(ge=1)] = 64
    """Images of a step."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """The optimiser; sgd has momentum 0.9."""
    weight_decay: NonNegative = 0.0
    """Weight decay of backbone and head."""
    head_lr: Positive = 1e-2
    """Learning rate of the new head, the same for all arms. Tying it to the backbone's rate biases the comparison."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Course of both learning rates over the steps."""
    batch_norm: Literal["frozen", "train"] = "frozen"
    """frozen: BatchNorm keeps the statistics of pre-training; train: it follows the batches."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the network on a GPU; the head, the loss and the penalty stay in fp32."""
    augmentation: Augmentation = "none"
    """Random changes of training images, other ones in every epoch. dfr: a crop of 0.7 to 1 of the area at a ratio of 3/4 to 4/3,
    mirrored half of the time; group-dro: the same, on faces at 1 to 4/3. The crop is cut from the stored square, the published
    code's from the file (see `anchored.data.augment`). The linear probe's features are those of the plain squares."""
    frozen_stages: Annotated[int, Field(ge=0)] | None = None
    """Stages (blocks of a ViT) that all arms leave fixed after the stem, which is fixed too; what they make of the images is
    computed once a job and kept in memory, so that training costs what the rest costs: for small machines. F is conditioned over
    the whole network all the same: its mean over what is trained may be far from 1. None: all is trained."""
    candidates: Literal["last", "every"] = "last"
    """Epochs whose predictions are stored and among which a selection rule picks."""
    save_models: bool = True
    """Keep the fine-tuned weights of every cell."""

    @model_validator(mode="after")
    def _fixed_stages_see_one_image(self) -> Self:
        if self.frozen_stages is not None and self.augmentation != "none":
            raise ValueError("frozen_stages needs augmentation: none, because what the fixed stages make is computed once")
        return self


class Experiment(Section):
    """One comparison of arms on one dataset and one backbone."""

    dataset: Identifier
    """The labelled dataset."""
    backbone: Identifier
    """The backbone; every copy takes part."""
    fim: Identifier | None = None
    """The FIM of the arms ewc and ewc-shuffled; they need one."""
    title: str = ""
    """Heading of the tables."""
    note: str = ""
    """Printed under every table: what a reader must know to read it rightly."""
    replicates: Count = 5
    """Seeds of each backbone copy. A seed fixes the labelled draw and the order of the batches; arms are paired by it."""
    training: Training = Training()
    """What all arms share."""
    arms: Arms
    """The arms and their grids."""
    baseline: Arm = "erm"
    """The arm that differences are taken to."""
    reference_lr: Positive = 1e-3
    """The learning rate of the table 'same learning rate'."""
    rules: tuple[Literal["val-wga", "val-average", "oracle-test-wga"], ...] = ("val-wga", "val-average", "oracle-test-wga")
    """Selection rules; each gets a table."""
    contrasts: tuple[tuple[Arm, Arm], ...] = (
        ("ewc", "l2sp"),
        ("ewc", "ewc-shuffled"),
        ("ewc", "freeze"),
        ("ewc", "linear-probe"),
    )
    """Further pairs of arms whose difference is printed with an interval; pairs with an arm that takes no part are left out."""
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    """Resamples of the paired bootstrap."""
    configurations_per_job: Count = 3
    """Grid points of one process; it runs all replicates of them. Changes the speed, never the result."""
    replicates_per_job: Count | None = None
    """Replicates of its grid points that one process runs, where all would take too long for one job; all where it is left out."""

    @model_validator(mode="after")
    def _arms_exist(self) -> Self:
        arms = self.arms.present()
        if self.baseline not in arms:
            raise ValueError(f"baseline '{self.baseline}' is not among the arms: {', '.join(arms)}")
        if self.fim is None and (needy := [arm for arm in ANCHORED_ARMS if arm in arms]):
            raise ValueError(f"fim is missing, the arm '{needy[0]}' needs one")
        fixed, freeze = self.training.frozen_stages, self.arms.freeze
        if fixed is not None and freeze is not None and min(freeze.stages) < fixed:
            raise ValueError(f"arms.freeze.stages has {min(freeze.stages)}, but training.frozen_stages fixes {fixed} for all arms")
        return self


class Config(Section):
    """A whole configuration file."""

    name: Identifier
    """Name of the plan, printed in the report."""
    seed: int = 2022
    """Every seed of the plan derives from it."""
    threads: Count = 1
    """CPU threads of a process. Part of the plan because other numbers give other bits."""
    datasets: dict[Identifier, Dataset]
    """Labelled datasets and unlabelled banks."""
    backbones: dict[Identifier, Backbone]
    """Backbones."""
    fims: Annotated[dict[Identifier, Fim], Field(default_factory=dict)]
    """Fisher information matrices."""
    experiments: dict[Identifier, Experiment]
    """Comparisons."""

    @model_validator(mode="after")
    def _references_exist(self) -> Self:
        for where, key, table in self._references():
            if key not in table:
                raise ValueError(f"{where}: '{key}' is not defined; known: {', '.join(table) or 'none'}")
        for name, dataset in self.datasets.items():
            if isinstance(dataset, DigitBank) and not isinstance(self.datasets[dataset.scenes], DigitScenes):
                raise ValueError(f"datasets.{name}.scenes: '{dataset.scenes}' is not a digitscenes dataset")
            if isinstance(dataset, TrainingImages) and not isinstance(self.datasets[dataset.of], LABELLED_FILES):
                raise ValueError(f"datasets.{name}.of: '{dataset.of}' is not a labelled dataset in files")
        banks = {name for name, dataset in self.datasets.items() if isinstance(dataset, BANKS)}
        for where, key, wants_bank in self._uses():
            if (key in banks) != wants_bank:
                raise ValueError(f"{where}: '{key}' is {'a labelled dataset' if wants_bank else 'an unlabelled bank'}")
            if multi_label(self.datasets[key]):
                raise ValueError(f"{where}: '{key}' has 40 targets (target: all), training and probes need one class: name one")
        for name, fim in self.fims.items():
            if not self.backbones[fim.backbone].has_loss:
                raise ValueError(
                    f"fims.{name}.backbone: '{fim.backbone}' is imported without a head, so it has no {fim.objective} loss; "
                    f"give backbones.{fim.backbone}.head"
                )
        for name, experiment in self.experiments.items():
            if experiment.fim and self.fims[experiment.fim].backbone != experiment.backbone:
                raise ValueError(
                    f"experiments.{name}.fim: '{experiment.fim}' is measured on '{self.fims[experiment.fim].backbone}', "
                    f"the experiment uses '{experiment.backbone}'"
                )
        return self

    def _references(self) -> list[tuple[str, str, dict]]:
        pairs: list[tuple[str, str, dict]] = []
        for name, dataset in self.datasets.items():
            if isinstance(dataset, DigitBank):
                pairs.append((f"datasets.{name}.scenes", dataset.scenes, self.datasets))
            if isinstance(dataset, TrainingImages):
                pairs.append((f"datasets.{name}.of", dataset.of, self.datasets))
        pairs += [(where, key, self.datasets) for where, key, _ in self._uses()]
        pairs += [(f"fims.{name}.backbone", fim.backbone, self.backbones) for name, fim in self.fims.items()]
        for name, experiment in self.experiments.items():
            pairs.append((f"experiments.{name}.backbone", experiment.backbone, self.backbones))
            if experiment.fim:
                pairs.append((f"experiments.{name}.fim", experiment.fim, self.fims))
        return pairs

    def _uses(self) -> list[tuple[str, str, bool]]:
        uses = [(f"fims.{name}.bank", fim.bank, True) for name, fim in self.fims.items()]
        uses += [(f"experiments.{name}.dataset", entry.dataset, False) for name, entry in self.experiments.items()]
        for name, backbone in self.backbones.items():
            if backbone.pretraining:
                uses.append((f"backbones.{name}.pretraining.bank", backbone.pretraining.bank, True))
                uses.append((f"backbones.{name}.pretraining.probe", backbone.pretraining.probe, False))
            if backbone.head:
                uses.append((f"backbones.{name}.head.bank", backbone.head.bank, True))
        return uses
