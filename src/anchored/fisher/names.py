"""One network, several spellings: the parameter names of timm, torchvision and the original DINO code.

    measured name  <-  layout, prefix  ->  timm's name  <-  layout, prefix  ->  name in the user's model

A layout is a table of templates, {n} a number and {leaf} the last part of a name. What no template matches is spelt as timm spells
it: torchvision's ResNets, the original DINO ViT and the DINO ResNet-50 need no table. A template on one side and several on the
other are one tensor stacked along its first dimension: the same entries, cut elsewhere. Conversions only rename, cut and join, so
they are exact for anything element-wise, and going there and back changes nothing.

Names were compared with torchvision 0.28 (and `linear_1` of 0.12), timm 1.0, facebookresearch/dino and facebookresearch/xcit.
"""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Templates = tuple[str, ...]

WRAPPERS = ("module.", "backbone.", "model.", "teacher.", "student.")
"""How a network is called inside of another module: DistributedDataParallel, MultiCropWrapper, checkpoints of DINO."""


@dataclass(frozen=True)
class Layout:
    """How one library spells the parameters of a network.

    Args:
        name: for messages.
        table: (templates of this layout, templates of timm); one of the two has a single template.
    """

    name: str
    table: tuple[tuple[Templates, Templates], ...] = ()


def _vit(first: str, second: str) -> tuple[tuple[Templates, Templates], ...]:
    block = "encoder.layers.encoder_layer_{n}"
    pairs = {
        "class_token": "cls_token",
        "conv_proj.{leaf}": "patch_embed.proj.{leaf}",
        "encoder.pos_embedding": "pos_embed",
        f"{block}.ln_1.{{leaf}}": "blocks.{n}.norm1.{leaf}",
        f"{block}.self_attention.in_proj_weight": "blocks.{n}.attn.qkv.weight",
        f"{block}.self_attention.in_proj_bias": "blocks.{n}.attn.qkv.bias",
        f"{block}.self_attention.out_proj.{{leaf}}": "blocks.{n}.attn.proj.{leaf}",
        f"{block}.ln_2.{{leaf}}": "blocks.{n}.norm2.{leaf}",
        f"{block}.mlp.{first}.{{leaf}}": "blocks.{n}.mlp.fc1.{leaf}",
        f"{block}.mlp.{second}.{{leaf}}": "blocks.{n}.mlp.fc2.{leaf}",
        "encoder.ln.{leaf}": "norm.{leaf}",
        "heads.head.{leaf}": "head.{leaf}",
    }
    return tuple(((there,), (here,)) for there, here in pairs.items())


LAYOUTS = (
    Layout("timm"),
    Layout("torchvision-vit", _vit("0", "3")),
    Layout("torchvision-vit-0.12", _vit("linear_1", "linear_2")),
    Layout(
        "xcit",
        (
            (("pos_embeder.token_projection.{leaf}",), ("pos_embed.token_projection.{leaf}",)),
            (
                ("cls_attn_blocks.{n}.attn.qkv.{leaf}",),
                tuple(f"cls_attn_blocks.{{n}}.attn.{part}.{{leaf}}" for part in "qkv"),
            ),
        ),
    ),
)


def to_timm(tensors: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """`tensors` of `layout` under timm's names. What the table does not match stays as it is."""
    return _convert(tensors, layout.table)


def from_timm(tensors: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """`tensors` under timm's names as `layout` has them: the inverse of `to_timm`."""
    return _convert(tensors, tuple((here, there) for there, here in layout.table))


@dataclass(frozen=True)
class Conversion:
    """From the spelling of a model to that of a Fisher, and back.

    Args:
        model: layout of the model, and the prefix before its names.
        fisher: layout of the Fisher, and the prefix before its names.
    """

    model: tuple[Layout, str]
    fisher: tuple[Layout, str]

    @property
    def text(self) -> str:
        """In words: empty where nothing changes."""
        sides = [f"{layout.name}{f', {prefix}*' if prefix else ''}" for layout, prefix in (self.fisher, self.model)]
        return "" if sides[0] == sides[1] else f"{sides[0]} -> {sides[1]}"

    def to_fisher(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of the model as the Fisher spells them; those outside of the model's prefix are left out."""
        return _add(from_timm(to_timm(_strip(tensors, self.model[1]), self.model[0]), self.fisher[0]), self.fisher[1])

    def to_model(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of the Fisher as the model spells them."""
        return _add(from_timm(to_timm(_strip(tensors, self.fisher[1]), self.fisher[0]), self.model[0]), self.model[1])


def conversions(fisher: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> list[Conversion]:
    """All ways to find every entry of `fisher` among the parameters of `model`, by name; the plainest first."""
    sources = [spelling for spelling in _spellings(fisher) if all(name.startswith(spelling[1]) for name in fisher)]
    found: dict[frozenset[str], Conversion] = {}
    for target in _spellings(model):
        offered = to_timm(_strip(model, target[1]), target[0]).keys()
        for source in sources:
            if to_timm(_strip(fisher, source[1]), source[0]).keys() <= offered:
                way = Conversion(target, source)
                names = frozenset(way.to_model(fisher))
                if names <= model.keys():  # a part of a stacked tensor has no name on the other side
                    found.setdefault(names, way)
    return list(found.values())


@dataclass(frozen=True)
class Misfit:
    """What a Fisher has and a model lacks under the best of all spellings.

    Args:
        missing: names as the Fisher spells them.
        nearest: the name of the model most like the first of them; empty if none is.
        entries: number of tensors of the Fisher.
    """

    missing: tuple[str, ...]
    nearest: str
    entries: int


def misfit(fisher: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> Misfit:
    """Why `conversions` found nothing."""
    best: tuple[list[str], dict[str, str]] | None = None
    for layout, prefix in _spellings(fisher):
        spelt = {name: _spelling(name, fisher[name], layout, prefix) for name in fisher}
        for other, wrapper in _spellings(model):
            own: dict[str, str] = {}
            for name, tensor in _strip(model, wrapper).items():
                own |= dict.fromkeys(to_timm({name: tensor}, other), wrapper + name)
            missing = [name for name, parts in spelt.items() if not parts <= own.keys()]
            if best is None or len(missing) < len(best[0]):
                best = missing, own
    if best is None or not best[0]:
        return Misfit((), "", len(fisher))
    near = difflib.get_close_matches(best[0][0], best[1], n=1, cutoff=0.5)
    return Misfit(tuple(best[0]), best[1][near[0]] if near else "", len(fisher))


def prefixes(names: Collection[str]) -> list[str]:
    """Every chain of wrappers that `names` start with, the empty one first: "", "module.", "module.backbone."."""
    found = [""]
    for prefix in found:
        longer = [prefix + wrapper for wrapper in WRAPPERS]
        found += [candidate for candidate in longer if any(name.startswith(candidate) for name in names)]
    return found


def _spellings(tensors: Mapping[str, Tensor]) -> Iterator[tuple[Layout, str]]:
    """Layouts and prefixes that say something about these names: timm's always, others where their table matches."""
    for prefix in prefixes(tensors):
        names = _strip(tensors, prefix)
        for layout in LAYOUTS:
            sources = [template for side, _ in layout.table for template in side]
            if not layout.table or any(_pattern(template).fullmatch(name) for template in sources for name in names):
                yield layout, prefix


def _spelling(name: str, tensor: Tensor, layout: Layout, prefix: str) -> set[str]:
    return set(to_timm({name.removeprefix(prefix): tensor}, layout))


def _strip(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}


def _add(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _convert(tensors: Mapping[str, Tensor], table: Sequence[tuple[Templates, Templates]]) -> dict[str, Tensor]:
    """Each name by the first row whose source matches; a target joined of several waits until all of them are there."""
    result: dict[str, Tensor] = {}
    rows = [([_pattern(template) for template in sources], sources, targets) for sources, targets in table]
    for name, tensor in tensors.items():
        for patterns, sources, targets in rows:
            match = next((found for pattern in patterns if (found := pattern.fullmatch(name))), None)
            if match is None:
                continue
            pieces = [_fill(source, match) for source in sources]
            whole = [tensors.get(piece) for piece in pieces]
            if any(piece is None for piece in whole) or (len(targets) > 1 and tensor.shape[0] % len(targets)):
                continue  # an incomplete set is no instance of the row
            if name == pieces[0]:
                joined = tensor if len(whole) == 1 else torch.cat([piece for piece in whole if piece is not None])
                names = [_fill(target, match) for target in targets]
                result |= dict(zip(names, joined.chunk(len(names)) if len(names) > 1 else [joined], strict=True))
            break
        else:
            result[name] = tensor
    return result


def _fill(template: str, match: re.Match[str]) -> str:
    return template.format(**match.groupdict())


def _pattern(template: str) -> re.Pattern[str]:
    escaped = re.escape(template).replace(r"\{n\}", r"(?P<n>\d+)").replace(r"\{leaf\}", r"(?P<leaf>[a-z]+)")
    return re.compile(escaped)
