"""What the exact diagonal Fisher costs, as a multiple of one ordinary forward and backward pass.

    python benchmarks/fisher_cost.py [--repeats 15]

Two models of the demo's size, 64 images with two views each at 20 pixels, one thread. Everything runs in one process, one after the
other and again, so that a busy machine slows all of it alike; the medians are divided. "plain" leaves all parameters trainable
and calls backward. "hooks" and "loop" are the cost of a batch after the first: the first one is also used for checks, which
cost another backward pass, once; "checks" is what they add to that first batch.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from anchored.compat import prepare_torchvision
from anchored.fisher.hooks import Hooks
from anchored.fisher.loop import Loop

IMAGES, VIEWS, SIZE, CLASSES = 64, 2, 20, 128


def main() -> None:
    """Prints one line a model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print(f"{'model':8} {'plain':>9} {'hooks/plain':>12} {'loop/plain':>11} {'checks/plain':>13} {'peak MiB':>9}")
    for name, model in (("vit", tiny_vit()), ("resnet", tiny_resnet())):
        times = measure(model, repeats)
        plain = times["plain"]
        checks = (times["hooks, first batch"] - times["hooks"]) / plain
        print(
            f"{name:8} {plain * 1e3:6.1f} ms {times['hooks'] / plain:12.2f} {times['loop'] / plain:11.2f} {checks:13.2f} "
            f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:9.0f}"
        )


def measure(model: nn.Module, repeats: int) -> dict[str, float]:
    """Median seconds of each way to go through one batch."""
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(IMAGES, VIEWS, 3, SIZE, SIZE, generator=generator)
    features = getattr(model, "num_features", 64)
    head = torch.randn(CLASSES, features, generator=generator) / features**0.5
    targets = torch.randint(CLASSES, (IMAGES, VIEWS), generator=generator)

    def loss(network: nn.Module, views: Tensor) -> Tensor:
        rows = views.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        logits = network(rows) @ head.t()
        each = nn.functional.cross_entropy(logits, targets[: len(views)].flatten(), reduction="none")
        return each.unflatten(0, (len(views), VIEWS)).mean(1)

    def plain() -> None:
        model.zero_grad()
        loss(model, batch).sum().backward()

    names = [name for name, _ in model.named_parameters()]
    loop = Loop(model, names, torch.float32)

    seconds: dict[str, list[float]] = {"plain": [], "hooks": [], "loop": [], "hooks, first batch": []}
    for _ in range(repeats + 1):
        seconds["plain"].append(timed(plain))
        hooks = Hooks(model, names, torch.float32)
        seconds["hooks, first batch"].append(timed(partial(hooks.add, batch, loss, 0)))
        seconds["hooks"].append(timed(partial(hooks.add, batch, loss, IMAGES)))
        hooks.close()
        seconds["loop"].append(timed(partial(loop.add, batch, loss, 0)))
    # The first round allocates memory and compiles convolutions.
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def timed(work: Callable[[], object]) -> float:
    """CPU seconds that `work` takes: with one thread, the wall time of an idle machine."""
    start = time.process_time()
    work()
    return time.process_time() - start


def tiny_vit() -> nn.Module:
    """The demo's ViT: patches of 4, width 64, 4 blocks."""
    prepare_torchvision()
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    return VisionTransformer(img_size=SIZE, patch_size=4, embed_dim=64, depth=4, num_heads=4, num_classes=0).eval()


def tiny_resnet() -> nn.Module:
    """The demo's ResNet: 133,376 parameters, a 3x3 stem with stride 2, no max-pool."""
    prepare_torchvision()
    from timm.models.resnet import BasicBlock, ResNet

    torch.manual_seed(0)
    block: Any = BasicBlock
    model: Any = ResNet(block, (1, 1, 1, 1), channels=(16, 32, 48, 64), num_classes=0)
    model.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return cast(nn.Module, model.to(memory_format=torch.channels_last).eval())


if __name__ == "__main__":
    main()
