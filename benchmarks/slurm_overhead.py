"""What a job on a SLURM cluster costs on top of its step, for four ways to send the same cells: the table of docs/cluster.md.

    python benchmarks/slurm_overhead.py [--write]

A real SLURM (that of the tests) with one node of one CPU runs the baseline cells of a miniature study, so that jobs wait for each
other and never share the CPU. Node seconds are what accounting says, the step's seconds and CPU seconds what Snakemake's
benchmark file says. On a machine that does nothing else both figures agree; on a busy one the CPU seconds are the sturdier one.
The last column is the length from which a cell is ten times what is around it, by CPU seconds and by node seconds.
"""

import argparse
import dataclasses
import getpass
import json
import os
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / folder) for folder in ("slurm", "workflow")]

from checkout import Checkout, check_out  # noqa: E402
from cluster import Cluster, Hardware, missing_programs  # noqa: E402

PAGE = ROOT / "docs" / "cluster.md"
BLOCK = re.compile(r"(<!-- overhead -->\n)(.*?)(<!-- end -->)", re.DOTALL)
CELLS = 4
# Options of Snakemake, and cells of a job in the plan.
WAYS = {
    "a job a cell": ((), 1),
    f"a group of {CELLS} jobs": (("--groups", "finetune_baseline=cells", "--group-components", f"cells={CELLS}"), 1),
    f"an array of {CELLS} jobs": (("--slurm-array-jobs", "finetune_baseline"), 1),
    f"{CELLS} cells in a job of the plan": ((), CELLS),
}
HEADER = """\
| way | SLURM jobs | step, s per cell | around it, s per cell | CPU around it, s per cell | cells longer than |
|---|---|---|---|---|---|
"""


def main() -> None:
    """Prints the table; with `--write` puts it into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="Replace the table in docs/cluster.md.")
    options = parser.parse_args()
    if missing := missing_programs(accounting=True):
        print(f"left out: this machine has no {', '.join(missing)}")
        return
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder, "c"), Hardware(nodes=1, cpus=1, memory=64_000, gpus=1), accounting=True)
        try:
            cluster.start()
            ready = prepared(Path(folder, "ready"))
            lines = [measured(way, cluster, ready.copy(Path(folder, str(number)))) for number, way in enumerate(WAYS)]
        finally:
            cluster.stop(purge=True)
    table = HEADER + "".join(lines)
    print(table)
    if options.write:
        PAGE.write_text(BLOCK.sub(lambda match: f"{match[1]}\n{table}\n{match[3]}", PAGE.read_text()))


def prepared(folder: Path) -> Checkout:
    """A checkout in which only the baseline cells are still to be run."""
    study = (ROOT / "tests" / "workflow" / "mini.yaml").read_text()
    rates = ", ".join(f"{number}.0e-4" for number in range(1, CELLS + 1))
    study = study.replace("erm: {lr: [1.0e-3]}", f"erm: {{lr: [{rates}]}}").replace("replicates: 2", "replicates: 1")
    made = check_out(folder, study)
    made.run("snakemake", "--cores", "1", "backbones", "data", timeout=1800)
    return made


def measured(way: str, cluster: Cluster, checkout: Checkout) -> str:
    """Runs the cells in one way; a line of the table."""
    options, cells = WAYS[way]
    checkout.edit("config.yaml", "configurations_per_job: 1", f"configurations_per_job: {cells}")
    checkout.compile()
    jobs = sorted(f"results/runs/{job}/record.json" for job in json.loads((checkout.path / "plan.json").read_text())["baseline"])
    quick = {"SNAKEMAKE_PROFILE": str(ROOT / "tests" / "slurm" / "quick"), "USER": getpass.getuser()}
    on_cluster = dataclasses.replace(checkout, variables=cluster.environment | quick)
    done = on_cluster.run("snakemake", "--workflow-profile", "profiles/slurm", *options, "--", *jobs, timeout=1800)
    (run,) = re.findall(r"SLURM run ID: (\S+)", done.stdout + done.stderr)
    taken = _accounted(cluster, f"--name={run}", "--allocations", "--format=JobIDRaw,ElapsedRaw")
    used = _accounted(cluster, f"--jobs={','.join(number for number, _ in taken)}", "--format=JobID,TotalCPU")
    steps = [json.loads(file.read_text().splitlines()[-1]) for file in (checkout.path / "logs" / "finetune").glob("*.jsonl")]
    if len(steps) * cells != CELLS:
        raise RuntimeError(f"{len(steps)} steps of {cells} cells ran, not {CELLS} cells.")
    work, work_cpu = (sum(step[key] for step in steps) / CELLS for key in ("s", "cpu_time"))
    around = sum(int(seconds) for _, seconds in taken) / CELLS - work
    # Of SLURM's steps; the line of the job itself would count them again.
    around_cpu = sum(_seconds(text) for number, text in used if "." in number) / CELLS - work_cpu
    lengths = " to ".join(dict.fromkeys(f"{10 * seconds:.0f}" for seconds in (around_cpu, around)))
    return f"| {way} | {len(taken)} | {work:.1f} | {around:.1f} | {around_cpu:.1f} | {lengths} s |\n"


def _accounted(cluster: Cluster, *options: str) -> list[list[str]]:
    done = cluster.run("sacct", "--noheader", "--parsable2", "--starttime=now-1days", *options)
    return [line.split("|") for line in done.stdout.splitlines()]


def _seconds(text: str) -> float:
    """Seconds of SLURM's [[hours:]minutes:]seconds."""
    total = 0.0
    for part in text.split(":"):
        total = 60 * total + float(part)
    return total


if __name__ == "__main__":
    main()
