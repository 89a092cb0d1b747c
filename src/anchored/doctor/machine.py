"""What computes: torch, GPUs, threads."""

from collections.abc import Iterator

from anchored.doctor.finding import Finding, Patient, error, ok, warning
from anchored.graph import visible_gpus
from anchored.processes import cpus


def check(patient: Patient) -> Iterator[Finding]:
    """The build of torch against the machine's devices, and the plan's threads against the cores that this process may use."""
    try:
        import torch
    except ImportError as failure:
        yield error("torch", f"cannot be imported: {failure}.", "run `make install`.")
        return
    build = f"{torch.__version__}, " + (f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count:
        names = sorted({torch.cuda.get_device_name(index) for index in range(count)})
        yield ok("torch", f"{build}; {count} GPU{'s' if count > 1 else ''}: {', '.join(names)}")
    elif visible_gpus():
        why = "this build of torch has no CUDA" if torch.version.cuda is None else "torch cannot use it"
        yield warning(
            "torch",
            f"{build}; this machine has an NVIDIA GPU, but {why}: everything runs on the CPU.",
            "install a build for your driver; `nvidia-smi` says which CUDA that knows.",
        )
    else:
        yield ok("torch", f"{build}; no GPU is visible, everything runs on the CPU")
    yield from _threads(patient)


def _threads(patient: Patient) -> Iterator[Finding]:
    if patient.plan is None:
        return
    threads, usable = patient.plan["threads"], cpus()
    text = f"{threads} a process by the plan, {usable} cores here"
    if threads > usable:
        yield warning("threads", f"{text}: every step waits for itself.", "set `threads` in the configuration, or use more cores.")
    else:
        yield ok("threads", f"{text}: at most {usable // threads} processes side by side")
