"""The Python of docs/diagnostics.md runs as it stands, and its pictures exist."""

import re
from pathlib import Path

import torch
from torch import nn

from anchored.fisher import diagonal_fisher

DOCS = Path(__file__).parents[2] / "docs"


def test_the_code_of_the_documentation_runs():
    model = nn.Linear(3, 2)
    # Columns of very different size: two halves then agree on the order of the entries of F, whatever the weights.
    images = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 10.0, 100.0])

    def measure(start: int, stop: int):
        return diagonal_fisher(model, [images[start:stop]], lambda m, x: m(x).square().sum(1))

    fisher, other = measure(0, 20), measure(20, 40)
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "diagnostics.md").read_text(), re.DOTALL)
    namespace = {"fisher": fisher, "other": other, "measure": measure, "images": images}
    exec(code, namespace)
    assert namespace["summary"].raw.entries == 8
    assert namespace["alike"].rank > 0
    assert namespace["noise"].images == 32


def test_pictures_and_links_exist():
    for page in ("diagnostics.md", "release.md"):
        links = re.findall(r"\]\((?!http)([^)#]+)\)", (DOCS / page).read_text())
        assert [link for link in links if not (DOCS / link).exists()] == []
