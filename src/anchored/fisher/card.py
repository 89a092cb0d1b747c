"""The card of a FIM: what it is and what it looks like, in Markdown."""

from collections.abc import Mapping

from tabulate import tabulate

from anchored.fisher.diagonal import DiagonalFisher
from anchored.fisher.statistics import FisherStatistics


def card(name: str, facts: Mapping[str, str], fisher: DiagonalFisher, summary: FisherStatistics) -> str:
    """The text of `card.md`."""
    described = [(key.replace("_", " "), value.replace("|", "\\|")) for key, value in facts.items()]
    described += [("images", str(fisher.count)), ("backend", fisher.backend)]
    layers = [
        (layer, tensor.entries, f"{tensor.share:.4f}", f"{tensor.mean:.3e}", f"{tensor.max:.3e}", tensor.zeros)
        for layer, tensor in summary.tensors.items()
    ]
    return "\n".join(
        [
            f"# Diagonal Fisher information: {name}",
            "",
            "F = (1/N) sum over images of the squared gradient of the SSL loss of one image, all its views joined before the "
            "square. Raw: condition it on load (`anchored.fisher.condition`).",
            "",
            tabulate(described, headers=("fact", "value"), tablefmt="github"),
            "",
            f"Trace {summary.trace:.6e} over {summary.entries} parameters, mean {summary.trace / summary.entries:.6e}, "
            f"effective rank {summary.effective_rank:.1f}, 95 % / 5 % quantile ratio {summary.condition_ratio:.3e}.",
            "",
            tabulate(layers, headers=("tensor", "entries", "share of trace", "mean", "max", "zeros"), tablefmt="github"),
            "",
            "```python",
            "from anchored.fisher import load_fisher",
            "from anchored.finetune import Anchor",
            "",
            'penalty = Anchor(model, load_fisher("fim.safetensors", model), strength=1.0)',
            "# after loss.backward(), before optimizer.step():",
            "penalty.add_gradient()",
            "```",
            "",
        ]
    )
