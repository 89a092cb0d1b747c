"""The diagonal Fisher against its peers: time, memory and error, as ratios to one ordinary forward and backward pass.

    python benchmarks/fisher.py                              ViT-Ti, ViT-B and ResNet-50, everything that is installed
    python benchmarks/fisher.py --quick                      the demo's two small networks
    python benchmarks/fisher.py --models vit-ti --methods hooks,vmap --images 32
    python benchmarks/fisher.py --write                      benchmarks/README.md and fisher.json from what was measured

Each network and method runs twice, in processes of its own. Once for time: batches of the method and plain ones take turns, so
that a busy machine slows both; the ratio is that of the minima, in CPU seconds on a CPU. Freed memory stays with the process, so
that page faults do not count. Once for memory, above the loaded network, and for the sums, which are compared tensor by tensor
with the float64 loop.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peers
import torch
from models import FULL, QUICK, SETTINGS, Setting, batch, build
from table import read_result, write_result
from torch import Tensor, nn

# glibc: keep what is freed, and never give a large block its own mapping.
_KEEP_FREED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184", "MALLOC_TOP_PAD_": "268435456"}


def main() -> None:
    """Measures what is asked for; one line a row as it is done, the table at the end."""
    arguments = _arguments()
    if arguments.role:
        print(json.dumps(_role(arguments)))
        return
    rows: list[dict[str, Any]] = []
    for model in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            truth = Path(folder) / "truth.pt"
            _child(arguments, model, "loop", "truth", truth)
            for method in arguments.methods:
                started = time.perf_counter()
                row = _row(arguments, model, method, truth)
                if row is not None:
                    rows.append({"model": model, "method": method, **row})
                    facts = {key: value for key, value in row.items() if key != "times"}
                    print(f"{model} {method} {facts}  ({time.perf_counter() - started:.0f} s)", file=sys.stderr, flush=True)
    previous = read_result() if arguments.write else None
    text = write_result(rows, arguments.device, previous, write=arguments.write)
    print(text)


def _row(arguments: argparse.Namespace, model: str, method: str, truth: Path) -> dict[str, Any] | None:
    """One line of the table; None where this version of the project has no such method."""
    memory = _child(arguments, model, method, "memory", truth)
    if memory.get("absent"):
        return None
    if "fails" in memory:
        return memory
    return {**memory, **_child(arguments, model, method, "time", truth)}


def _child(arguments: argparse.Namespace, model: str, method: str, role: str, truth: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--role", role, "--models", model, "--methods", method, "--truth", str(truth)]
    command += ["--images", str(arguments.images), "--device", arguments.device]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **(_KEEP_FREED if role == "time" else {})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode < 0:
        return {"fails": f"killed by signal {-done.returncode} (out of memory?)"}
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _role(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a child does."""
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    name, method = arguments.models[0], arguments.methods[0]
    setting, model = SETTINGS[name], build(name).to(device)
    if arguments.role == "truth":
        return _truth(model, setting, device, arguments.truth)
    with peers.reported() as reasons:
        try:
            run = _time if arguments.role == "time" else _memory_and_error
            return run(model, setting, method, device, arguments)
        except peers.NotOffered:
            return {"absent": True}
    return {"fails": reasons[0]}


def _truth(model: nn.Module, setting: Setting, device: torch.device, path: Path) -> dict[str, Any]:
    """The loop in float64 over one batch."""
    images, labels = batch(setting, 0, device)
    sums = peers.naive_loop(model.double(), [(images.double(), labels)])
    torch.save(sums, path)
    return {}


def _time(
    model: nn.Module, setting: Setting, method: str, device: torch.device, arguments: argparse.Namespace
) -> dict[str, Any]:
    other = build(arguments.models[0]).to(device)
    times: dict[str, list[float]] = {"plain": [], "method": []}

    def batches() -> Iterator[peers.Batch]:
        for index in range(max(2, arguments.images // setting.batch) + 1):
            data = batch(setting, index, device)
            with torch.enable_grad():
                times["plain"].append(_seconds(device, lambda: peers.plain(other, [data])))  # noqa: B023 - called at once
            start = _now(device)
            yield data
            times["method"].append(_now(device) - start)

    peers.METHODS[method][1](model, batches())
    # The first batch allocates, compiles convolutions, and is also used for our checks.
    best = {kind: min(values[1:]) for kind, values in times.items()}
    return {"time": best["method"] / best["plain"], "seconds": best["method"] / setting.batch, "times": times}


def _memory_and_error(
    model: nn.Module, setting: Setting, method: str, device: torch.device, arguments: argparse.Namespace
) -> dict[str, Any]:
    names = [name for name, _ in model.named_parameters()]
    data = batch(setting, 0, device)
    # Two passes over the batch: what is allocated once must not hide what a later batch needs on top.
    before = _reset_peak(device)
    sums = peers.METHODS[method][1](model, [data, data])
    peak = _peak(device) - before
    truth: dict[str, Tensor] = torch.load(arguments.truth)
    # Relative 2-norm, the worst tensor: one norm over everything would hide a wrong layer behind a large one.
    errors = {
        name: float((sums[name].detach().cpu().double() / 2 - truth[name].cpu()).norm() / truth[name].norm().cpu())
        for name in names
        if name in sums
    }
    worst = max(errors, key=lambda name: errors[name]) if errors else ""
    return {"mib": peak / 2**20, "error": errors.get(worst), "worst": worst, "missing": len(names) - len(errors)}


def _now(device: torch.device) -> float:
    """CPU seconds; on a GPU, which works while the CPU waits, seconds of the clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def _seconds(device: torch.device, work: Any) -> float:
    start = _now(device)
    work()
    return _now(device) - start


def _reset_peak(device: torch.device) -> int:
    """Forgets the high-water mark; returns the bytes in use."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")


def _status(key: str) -> int:
    """Bytes, from Linux."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def names(known: Any) -> Any:
        def parse(text: str) -> list[str]:
            unknown = [name for name in text.split(",") if name not in known]
            if unknown:
                raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; choose from {', '.join(known)}")
            return text.split(",")

        return parse

    parser.add_argument("--models", type=names(SETTINGS), default=None, help=", ".join(SETTINGS))
    parser.add_argument("--methods", type=names(peers.METHODS), default=list(peers.METHODS), help=", ".join(peers.METHODS))
    parser.add_argument("--images", type=int, default=None, help="timed images a method; default 48, or ten batches with --quick")
    parser.add_argument("--quick", action="store_true", help="the demo's networks")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--write", action="store_true", help="write README.md and fisher.json; rows of other networks stay")
    parser.add_argument("--role", choices=("truth", "time", "memory"), help=argparse.SUPPRESS)
    parser.add_argument("--truth", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("this machine has no CUDA device, or torch was built without it; leave --device out")
    if not Path("/proc/self/clear_refs").exists() and arguments.device == "cpu":
        parser.error("peak memory is read from Linux' /proc, which this machine lacks")
    arguments.models = arguments.models or list(QUICK if arguments.quick else FULL)
    if arguments.images is None:
        arguments.images = 640 if arguments.quick else 48
    # plain first: memory is divided by its own.
    arguments.methods = [m for m in peers.METHODS if m in arguments.methods or (m == "plain" and not arguments.role)]
    return arguments


if __name__ == "__main__":
    main()
