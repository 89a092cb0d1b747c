"""The graphs of both engines as JSON: `python engine_graphs.py snakemake|dvc FOLDER [PLAN]`. A process of its own, since
Snakemake changes the working directory and the logging of the process it runs in.

The only place that touches private parts of an engine: Snakemake has no public way to its jobs before they run.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

Node = dict[str, Any]


def snakemake_nodes(folder: Path, plan: str) -> list[Node]:
    """The jobs that `snakemake --forceall` would run."""
    from snakemake.api import SnakemakeApi
    from snakemake.settings.enums import Quietness
    from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings

    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(config={"plan": plan}),
            snakefile=folder / "Snakefile",
            workdir=folder,
        )
        workflow.dag(DAGSettings(forceall=True)).execute_workflow(executor="dryrun")
        jobs = [job for job in workflow._workflow.dag.jobs if job.shellcmd]
        return [
            {
                "name": f"{job.rule.name} {' '.join(map(str, job.wildcards))}".strip(),
                "command": job.shellcmd,
                "inputs": [str(path) for path in job.input],
                "outputs": [str(path) for path in job.output],
                "entry": job.params.get("entry"),
                "code": job.params.get("code"),
                "priority": job.priority,
            }
            for job in jobs
        ]


def dvc_nodes(folder: Path, plan: str) -> list[Node]:
    """The stages of dvc.yaml; their code as one digest, which Snakemake's rules have as a parameter."""
    from dvc.dependency.param import ParamsDependency
    from dvc.repo import Repo

    entries = json.loads((folder / plan).read_text())
    nodes = []
    for stage in Repo(str(folder)).index.stages:
        keys = [key for dep in stage.deps if isinstance(dep, ParamsDependency) for key in dep.params]
        deps = [_relative(dep.fs_path, folder) for dep in stage.deps if not isinstance(dep, ParamsDependency)]
        nodes.append(
            {
                "name": stage.name.replace("@", " "),
                "command": stage.cmd,
                "inputs": [dep for dep in deps if not dep.startswith("src/")],
                "outputs": [_relative(out.fs_path, folder) for out in stage.outs],
                "entry": _entry(entries, keys),
                "code": _digest([folder / dep for dep in deps if dep.startswith("src/")], folder / "src" / "anchored"),
            }
        )
    return nodes


def _relative(path: str, folder: Path) -> str:
    return os.path.relpath(path, folder)


def _digest(deps: list[Path], package: Path) -> str:
    """What `anchored.steps.code_digest` says of these files and folders, written out once more."""
    files = sorted(file for dep in deps for file in (dep.rglob("*.py") if dep.is_dir() else [dep]))
    named = b"".join(file.relative_to(package).as_posix().encode() + file.read_bytes() for file in files)
    return hashlib.sha256(named).hexdigest()


def _entry(entries: dict[str, Any], keys: list[str]) -> Any:
    if not keys:
        return None
    (key,) = keys
    kind, name = key.split(".")
    return entries[kind][name]


if __name__ == "__main__":
    engine, where, *rest = sys.argv[1:]
    # Both engines print on stdout what they feel like; the graph goes to the real one at the end.
    stdout, sys.stdout = sys.stdout, sys.stderr
    load = {"snakemake": snakemake_nodes, "dvc": dvc_nodes}[engine]
    found = load(Path(where).resolve(), rest[0] if rest else "plan.json")
    print(json.dumps(found), file=stdout)
