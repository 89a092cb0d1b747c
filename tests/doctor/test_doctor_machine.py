"""Devices and threads."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from found import only

from anchored import graph
from anchored.doctor.finding import OK, WARNING, Patient
from anchored.doctor.machine import check
from anchored.processes import cpus

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="torch can use a GPU here")


@NO_GPU
def test_without_a_gpu_everything_is_fine(patient: Patient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(graph, "DEVICES", tmp_path)
    found = only(check(patient), "torch")
    assert found.status == OK
    assert torch.__version__ in found.message
    assert "no GPU is visible" in found.message


@NO_GPU
def test_a_gpu_that_torch_cannot_use_is_a_warning(patient: Patient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The commonest way to wait ten times as long: a build of torch for CPUs on a machine with GPUs."""
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(graph, "DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = only(check(patient), "torch")
    assert found.status == WARNING
    assert "everything runs on the CPU" in found.message
    assert "nvidia-smi" in found.hint


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_is_named(patient: Patient):
    assert torch.cuda.get_device_name(0) in only(check(patient), "torch").message


def test_threads_are_compared_with_the_cores_of_the_process(patient: Patient):
    assert only(check(patient), "threads").message.startswith(f"1 a process by the plan, {cpus()} cores here")
    assert patient.plan is not None
    greedy = replace(patient, plan=patient.plan | {"threads": cpus() + 1})
    assert only(check(greedy), "threads").status == WARNING
