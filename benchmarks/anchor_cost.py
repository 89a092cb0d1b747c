"""Cost of the penalty: time of an EWC step over time of a plain step, interleaved in one process.

    python benchmarks/anchor_cost.py [--steps 60]

Prints medians and the median of the pairwise ratios, for the demo's network and for a larger one. The penalty adds one pass over
the parameters, so its share falls with the work of a step.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from anchored.backbones.build import freeze_batch_norm, seeded
from anchored.device import limit_threads
from anchored.finetune.anchor import Anchor
from anchored.finetune.loop import Classifier

_CASES = {
    "tiny-resnet, 64 images of 20 px": ({"family": "tiny-resnet", "layers": (1, 1, 1, 1), "channels": (16, 32, 48, 64)}, 64, 20),
    "tiny-vit, 64 images of 20 px": ({"family": "tiny-vit", "image": 20, "patch": 4, "width": 64, "depth": 4, "heads": 4}, 64, 20),
    "resnet18, 16 images of 96 px": ({"family": "timm", "name": "resnet18", "image": None}, 16, 96),
}


class Training:
    """A classifier with its optimiser and, for EWC, its anchor."""

    def __init__(self, architecture: dict, strength: float) -> None:
        self.model = Classifier(seeded(architecture, 0), 2).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.train()
        freeze_batch_norm(self.model)
        fisher = {name: torch.rand_like(parameter) for name, parameter in self.model.backbone.named_parameters()}
        self.anchor = Anchor(self.model.backbone, fisher, strength)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)

    def step(self, images: Tensor, labels: Tensor) -> float:
        """One step; returns its CPU seconds."""
        started = time.process_time()
        loss = F.cross_entropy(self.model(images), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.anchor.add_gradient()
        self.optimizer.step()
        return time.process_time() - started


def main() -> None:
    """Prints a line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    steps = parser.parse_args().steps
    limit_threads(1)
    for name, (architecture, count, size) in _CASES.items():
        plain, ewc = Training(architecture, 0.0), Training(architecture, 1.0)
        images = torch.randn(count, 3, size, size).to(memory_format=torch.channels_last)
        labels = torch.randint(0, 2, (count,))
        times = [(plain.step(images, labels), ewc.step(images, labels)) for _ in range(steps)][5:]
        ratio = statistics.median(b / a for a, b in times)
        a, b = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))
        print(f"{name}: plain {a:.2f} ms, EWC {b:.2f} ms, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
