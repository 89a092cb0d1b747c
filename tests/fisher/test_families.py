"""Every family of timm that the README calls native is exact, tensor by tensor; the others are refused by name."""

import re
from pathlib import Path

import pytest
import torch
from families import FAMILIES, REFUSED, Family
from fisher_cases import random

from anchored.errors import AnchoredError
from anchored.fisher import diagonal_fisher
from anchored.fisher.check import TOLERANCE, features_loss, freeze_unused, randomised, relative_errors

# Added to all keys, or to all scores of a query, which softmax does not see; or to what the next norm subtracts.
SYMMETRIC = re.compile(r"\b(w?k|norm_k|k\.conv|k\.bn|pos_proj|proj_l|talking_head1|meta_mlp\.fc2|shared_rel_pos\.mlp\.fc2)\.bias$")
README = Path(__file__).parents[2] / "src/anchored/fisher/README.md"


def prepared(family: Family, images: int = 2) -> tuple[torch.nn.Module, torch.Tensor]:
    model = randomised(family.model())
    views = random(images, 2, 3, family.pixels, family.pixels)
    freeze_unused(model, views, features_loss)
    return model, views


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.label)
def test_a_family_is_exact(family: Family):
    model, views = prepared(family)
    actual = diagonal_fisher(model, [views], features_loss, backend="hooks", dtype=torch.float64)
    expected = diagonal_fisher(model, [views], features_loss, backend="loop", dtype=torch.float64)
    errors, silent = relative_errors(actual, expected)
    wrong = {name: error for name, error in errors.items() if not error < TOLERANCE}
    assert not wrong, wrong
    assert not [name for name in silent if not SYMMETRIC.search(name)], "a tensor without any gradient tests nothing"


@pytest.mark.parametrize(("family", "reason"), REFUSED, ids=lambda value: getattr(value, "label", ""))
def test_a_family_is_refused_by_name(family: Family, reason: str):
    model, views = prepared(family)
    with pytest.raises(AnchoredError, match=re.escape(reason)):
        diagonal_fisher(model, [views], features_loss, backend="hooks")


def test_the_readme_lists_the_families():
    text = README.read_text()
    for title, families in (("Exact, tested", FAMILIES), ("Refused", [family for family, _ in REFUSED])):
        expected = sorted({family.module for family in families})
        listed = re.search(rf"^{title} \((\d+)\): (.*?)\.$", text, re.MULTILINE | re.DOTALL)
        line = f"{title} ({len(expected)}): {', '.join(expected)}."
        assert listed, f"put this into {README.name}: {line}"
        assert sorted(re.findall(r"\w+", listed[2])) == expected, f"{README.name} should say: {line}"
        assert int(listed[1]) == len(expected)


def test_at_least_forty_families_are_exact():
    assert len({family.module for family in FAMILIES}) >= 40
