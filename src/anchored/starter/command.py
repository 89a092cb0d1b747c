"""`anchored init`: looks at a dataset and writes a first configuration for it, with comments on what to change."""

import difflib
import json
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import yaml

from anchored.errors import ConfigError
from anchored.files import write_text
from anchored.plan.compile import summary
from anchored.plan.config import Config
from anchored.plan.expand import expand
from anchored.starter.inspect import Found, inspect

# Side of the images of the backbone that is trained here: a minute a pre-training on a CPU.
_TINY = 32
# Images that the tiny backbone sees in its pre-training, all passes together, and how many passes that may be.
_SEEN, _PASSES = 56_000, (5, 100)
# More training images than these are not needed by it.
_BANK = 20_000
_FIM = 512


@dataclass(frozen=True)
class Pretrained:
    """What timm says of its weights: side of the input, mean and standard deviation of its channels."""

    name: str
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def init(folder: Path, *, backbone: str | None, out: Path | None, root: Path) -> str:
    """Writes a configuration for the dataset in `folder`; returns what was found, and what to do next.

    Args:
        folder: of the dataset, or a zip or parquet file.
        backbone: name of a model of timm with weights; None: a tiny network, trained here without labels.
        out: where to; `config/NAME.yaml` where it is None.
        root: the root folder, which `folder` of the configuration is relative to.

    Raises:
        InputError: there is no labelled dataset that can be read.
        ConfigError: the file exists, or timm has no such weights.
    """
    model = _timm(backbone) if backbone else None
    found = inspect(folder)
    name = _identifier(Path(found.entry["folder"]))
    path = out or root / "config" / f"{name}.yaml"
    if path.exists():
        raise ConfigError(f"{path} exists.", "remove it, or choose another file with --out.")
    text = configuration(found, name, model, _relative(Path(found.entry["folder"]), root))
    plan = expand(Config.model_validate(yaml.safe_load(text)))
    write_text(path, text)
    compiled = root / "plans" / f"{path.stem}.json"
    return "\n".join(
        [
            *_described(found),
            "",
            f"wrote {path}: {summary(plan)}. Read its comments, then",
            f"  anchored plan --config {quote(str(path))} --out {quote(str(compiled))}",
            f"  snakemake --cores 2 --config {quote(f'plan={compiled}')}",
        ]
    )


def configuration(found: Found, name: str, model: Pretrained | None, folder: str) -> str:
    """The text of a configuration for a dataset: `folder` is how it names the data."""
    train, bank = found.splits["train"], f"{name}-bank"
    size = model.side if model else _TINY
    keys = {**{key: value for key, value in found.entry.items() if key != "folder"}, "folder": folder, "size": size}
    order = ["reader", "folder", *(key for key in keys if key not in ("reader", "folder", "size")), "size"]
    entry = "\n".join(f"    {key}: {json.dumps(keys[key], ensure_ascii=False)}" for key in order)
    backbone = _identifier(Path(model.name)) if model else "tiny-resnet"
    parts = [
        _header(found, name),
        f"datasets:\n  {name}:\n{entry}",
        _bank(name, bank, train, size, model),
        _imported(backbone, bank, model) if model else _tiny(backbone, name, bank, train),
        _fim(backbone, bank, train, model),
        _experiment(found, name, backbone, train, model),
    ]
    return "\n".join(parts)


def _header(found: Found, name: str) -> str:
    groups = "\n".join(f"#   {_one_line(line)}" for line in found.lines)
    problems = "\n".join(f"# Mind: {_one_line(problem)}" for problem in found.problems)
    return (
        f"# A first configuration for {_one_line(found.source)}, by `anchored init`. Every key and default: config/README.md.\n"
        f"{groups}\n{problems + chr(10) if problems else ''}name: {name}\n"
    )


def _bank(name: str, bank: str, train: int, size: int, model: Pretrained | None) -> str:
    # A large crop is cut from an image and enlarged to `size`: published recipes store 256 for 224.
    stored = f"\n    size: {size * 256 // 224}" if model else ""
    limit = f"\n    limit: {_BANK}" if train > _BANK else ""
    return f"""\
  # No unlabelled images were given, so the bank is the training images without their labels. Images of the same kind that nobody
  # labelled, the more the better, are a better one: {{reader: images, folder: data/photos, size: {size}}}
  {bank}:
    reader: training-images
    of: {name}{stored}{limit}
"""


def _tiny(backbone: str, name: str, bank: str, train: int) -> str:
    images = min(train, _BANK)
    passes = min(max(round(_SEEN / images), _PASSES[0]), _PASSES[1])
    return f"""\
backbones:
  # A small network, trained here without labels: it runs anywhere, and shows that the data are read rightly. For results use a
  # backbone that was pre-trained on many images: `anchored init ... --backbone vit_small_patch16_224.dino`.
  {backbone}:
    architecture: {{family: tiny-resnet}}
    pretraining:
      bank: {bank}
      probe: {name}
      epochs: {passes}
      batch: {max(2, min(128, images))}
      views: {{flip: 0.5}}
      infonce: {{weight: [3.0, 2.0]}}
"""


def _imported(backbone: str, bank: str, model: Pretrained) -> str:
    return f"""\
backbones:
  {backbone}:
    architecture: {{family: timm, name: {json.dumps(model.name)}}}
    weights: {{timm: true}}  # needs a network on the first run
    mean: {json.dumps(model.mean)}
    std: {json.dumps(model.std)}
    # The SSL loss that the Fisher is of: weights of timm come without their projection head, so one is trained on the frozen trunk.
    head:
      bank: {bank}
      from: trained
      views: {_views(model)}
"""


def _fim(backbone: str, bank: str, train: int, model: Pretrained | None) -> str:
    return f"""\
fims:
  dino:
    backbone: {backbone}
    bank: {bank}
    images: {min(train, 10_000 if model else _FIM)}
    views: {_views(model) if model else "{flip: 0.5}"}
"""


def _views(model: Pretrained) -> str:
    return f"{{recipe: dino, global_size: {model.side}, local_crops: 0}}"


def _experiment(found: Found, name: str, backbone: str, train: int, model: Pretrained | None) -> str:
    rates, reference = ("1.0e-6, 1.0e-5, 3.0e-5, 1.0e-4", "1.0e-5") if model else ("1.0e-5, 1.0e-4, 1.0e-3, 3.0e-3", "1.0e-3")
    epochs = min(max(round(40_000 / train), 2), 8)
    batch = 64 if train >= 640 else 16
    more = "precision: bf16, head_lr: 1.0e-3" if model else "head_lr: 1.0e-2"
    anchored = f"{{lr: [{reference}], strength: [0.1, 1.0, 10.0, 100.0]}}"
    small = min(found.histogram["test"].values())
    title = f"{_one_line(found.source)}, {model.name if model else 'tiny ResNet trained on its training images'}"
    return f"""\
experiments:
  {name}:
    title: {json.dumps(title, ensure_ascii=False)}
    dataset: {name}
    backbone: {backbone}
    fim: dino
    replicates: 5  # seeds; the smallest test group has {small} images, whose chance more seeds do not lessen
    training: {{epochs: {epochs}, batch: {batch}, {more}, save_models: false}}
    reference_lr: {reference}
    # Four configurations an arm: a larger grid has more chances. A pick at the end of its grid is flagged: widen the grid then.
    arms:
      erm: {{lr: [{rates}]}}
      linear-probe: {{c: [1.0e-3, 1.0e-2, 1.0e-1, 1.0]}}
      freeze: {{stages: [1], lr: [{rates}]}}
      l2sp: {anchored}
      ewc: {anchored}
"""


def _described(found: Found) -> list[str]:
    entry = ", ".join(f"{key}: {value}" for key, value in found.entry.items())
    short = sorted(min(size) for size in found.sizes)
    lines = [f"{found.source}: {sum(found.splits.values())} images ({entry})", *(f"  {line}" for line in found.lines)]
    if short:
        sides = f"{short[0]} to {short[-1]} pixels, median {short[len(short) // 2]}"
        lines.append(f"  shorter side of {len(short)} sampled images: {sides}")
    return lines + [f"  mind: {problem}" for problem in found.problems]


def _timm(name: str) -> Pretrained:
    """What timm says of the weights of that name; nothing is downloaded."""
    from anchored.compat import prepare_torchvision

    prepare_torchvision()
    import timm
    from timm.models import get_pretrained_cfg, is_model

    try:
        config = get_pretrained_cfg(name) if is_model(name) else None
    except RuntimeError:  # a tag that the model does not have
        config = None
    if config is None or not config.has_weights:
        known = timm.list_models(pretrained=True)
        near = [each for each in known if name in each][:3] or difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"it has, for example: {', '.join(near)}." if near else "timm.list_models(pretrained=True) names them."
        raise ConfigError(f"timm {timm.__version__} has no weights called '{name}'.", hint)
    return Pretrained(name, config.input_size[-1], config.mean, config.std)


def _identifier(path: Path) -> str:
    """The last part of a path as a name of the plan; letters lose their accents."""
    stem = path.resolve().name.lower().removesuffix(".zip").removesuffix(".parquet")
    stem = unicodedata.normalize("NFKD", stem.casefold())
    stem = "".join(letter for letter in stem if not unicodedata.combining(letter))
    name = "-".join(re.findall(r"[a-z0-9]+", stem)) or "data"
    # `2021`, `on` and `null` are no text in YAML.
    return name if isinstance(yaml.safe_load(name), str) else f"data-{name}"


def _relative(path: Path, root: Path) -> str:
    """How the configuration names the data: from the root folder where it lies below, else in full."""
    full, home = Path(os.path.abspath(path)), Path(os.path.abspath(root))
    return full.relative_to(home).as_posix() if full.is_relative_to(home) else str(full)


def _one_line(text: str) -> str:
    return " ".join(text.split())
