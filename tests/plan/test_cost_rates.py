"""Rates of devices: where they come from, and that records of a device give its rates back."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from cost_device import TRUE, unit_device

from anchored.cost.calibrate import calibrate, derive, read_records
from anchored.cost.throughput import BUILT_IN, Constant, built_in, load_device, save_device
from anchored.cost.work import What
from anchored.errors import ConfigError, InputError
from anchored.files import write_json

# --- rates -----------------------------------------------------------------------------------------------------------------


def test_no_rate_of_a_gpu_is_presented_as_measured():
    """Nobody measured one for this file. What the host's cores do was measured, and says on what."""
    for name in yaml.safe_load(BUILT_IN.read_text())["devices"]:
        device = load_device(None, name)[1]
        for key, constant in device.constants().items():
            host = key in ("decode", "draw", "fit", "rows", "tables")
            beginning = "measured on one core of an " if host or not device.gpu else "assumed, not measured"
            allowed = (beginning, "assumed, not measured")
            assert constant.source.startswith(allowed), (name, key, constant.source)


def test_a_throughput_file_comes_back_as_it_was_saved(tmp_path):
    """And its only device is taken without being named."""
    device = built_in(True)
    save_device(tmp_path / "mine.yaml", "my-gpu", device)
    assert load_device(tmp_path / "mine.yaml", None) == ("my-gpu", device)
    assert load_device(tmp_path / "mine.yaml", "cpu-core")[0] == "cpu-core"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("devices: {}", "devices: Dictionary should have at least 1 item"),
        ("devices: {a: {gpu: true, matmul: {fp32: {value: 0, source: x}}}}", "devices.a.matmul.fp32.value"),
        ("devices: [", "cannot be read"),
        ("device: {}", "unknown key 'device'; did you mean 'devices'?"),
    ],
)
def test_a_wrong_throughput_file_is_refused(tmp_path, text, message):
    """By key, like a configuration."""
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load_device(tmp_path / "mine.yaml", None)
    assert message in str(error.value)


def test_an_unknown_device_is_refused():
    with pytest.raises(ConfigError, match=r"there is no device 'h1000'\.\n  known: h100, cpu-core"):
        load_device(None, "h1000")


def test_a_precision_that_a_device_does_not_list_is_that_of_fp32():
    """A CPU trains in fp32 whatever the plan says of bf16."""
    device = unit_device(**{"matmul.fp32": 4.0})
    assert device.seconds_each(What("matmul", "bf16")) == 0.25
    with pytest.raises(ConfigError, match=r"no `slower.backwards`"):
        device.seconds_each(What("matmul", "fp32", "backwards"))


# --- calibration -----------------------------------------------------------------------------------------------------------


def test_calibration_finds_the_rates_that_made_the_records(mini_plan, work, records):
    """A ViT and a ResNet are among them, so that matrix products and convolutions can be told apart."""
    found = calibrate(mini_plan, work, [records], built_in)
    constants = found.device.constants()
    assert (found.name, found.used, found.skipped) == ("cpu", len(work), {})
    assert {key: constants[key].value for key in TRUE} == pytest.approx(TRUE, rel=0.01)
    assert constants["draw"].source == "measured: 2 records"
    assert constants["slower.loop"] == built_in(False).constants()["slower.loop"]


def test_predictions_of_the_other_half_are_reported(mini_plan, work, records):
    """From noiseless records both halves know almost all."""
    found = calibrate(mini_plan, work, [records], built_in)
    assert len(found.held_out) == len(work)
    tuned = [each for each in found.held_out if each.step.startswith("finetune")]
    assert all(each.predicted == pytest.approx(each.actual, rel=0.02) for each in tuned)


def test_wall_times_alone_give_the_networks_rates(mini_plan, work, records):
    """Records of older versions tell nothing else; setup is then that of the built-in device."""
    true_setup = unit_device(**TRUE).model_copy(update={"setup": Constant(value=TRUE["setup"], source="a test")})
    for path in records.rglob("record.json"):
        write_json(path, json.loads(path.read_text()) | {"measurements": {}})
    timed, _ = read_records(mini_plan, work, [records])
    base = built_in(False).model_copy(update={"setup": true_setup.setup})
    constants = derive(timed, base).constants()
    for key in ("matmul.fp32", "convolution.fp32", "slower.pretrain", "start"):
        assert constants[key].value == pytest.approx(TRUE[key], rel=0.03), key


def test_one_kind_of_network_scales_both_rates(mini_plan, work, records):
    """The demo has convolutions only: nothing is known of matrix products, which are then scaled alike."""
    timed, _ = read_records(mini_plan, work, [records])
    base = built_in(False)
    constants = derive([each for each in timed if "vit" not in each.job[1]], base).constants()
    assert constants["convolution.fp32"].value == pytest.approx(TRUE["convolution.fp32"], rel=0.01)
    assert constants["matmul.fp32"].value / base.matmul["fp32"].value == pytest.approx(
        constants["convolution.fp32"].value / base.convolution["fp32"].value, rel=1e-3
    )


def edit(path: Path, **values: Any) -> None:
    record = json.loads(path.read_text())
    for key, value in values.items():
        record[key] = record[key] | value if isinstance(value, dict) else value
    write_json(path, record)


def test_records_that_say_nothing_are_left_out(mini_plan, work, records):
    """A continued job saw a part of its time; another plan did other work; a file may be anything."""
    runs = records / "runs"
    edit(runs / "res-resnet-1-erm-1/record.json", measurements={"epochs_before_a_restart": 1})
    edit(records / "fim/vit-fim/record.json", measurements={"images_before_a_restart": 4})
    edit(runs / "res-resnet-1-ewc-1/record.json", entry={"digest": "another"})
    edit(runs / "res-resnet-2-ewc-1/record.json", name="res-resnet-3-ewc-1")
    (runs / "vit-vit-erm-1/record.json").write_text("{")
    found = calibrate(mini_plan, work, [records], built_in)
    assert found.used == len(work) - 5
    assert found.skipped == {
        "of a continued job": 2, "of another plan": 1, "of no job of this plan": 1, "no record of a step": 1,
    }  # fmt: skip


def test_records_of_two_devices_are_refused(mini_plan, work, records):
    """A median over a GPU and a core is neither."""
    edit(records / "runs/res-resnet-1-erm-1/record.json", device="NVIDIA Something")
    with pytest.raises(ConfigError, match="the records are of 2 devices: NVIDIA Something, cpu"):
        calibrate(mini_plan, work, [records], built_in)


def test_records_of_a_gpu_start_from_the_gpu_of_the_file(mini_plan, work, records):
    """Its steps that need none say `cpu` and tell of the host."""
    for path in [*records.glob("backbones/*/record.json"), *records.glob("fim/*/record.json"), *records.glob("runs/*/record.json")]:
        edit(path, device="NVIDIA Something 80GB")
    found = calibrate(mini_plan, work, [records], built_in)
    assert found.name == "nvidia-something-80gb"
    assert found.device.gpu
    # Not nearer: what is read and saved is taken from the built-in GPU, which is faster at it.
    assert found.device.matmul["fp32"].value == pytest.approx(TRUE["matmul.fp32"], rel=0.05)
    assert found.device.matmul["bf16"] == built_in(True).matmul["bf16"]


def test_no_record_of_the_plan_is_an_error(mini_plan, work, records, tmp_path):
    """With what was found instead."""
    shutil.rmtree(records)
    write_json(tmp_path / "other/record.json", {"step": "fim"})
    with pytest.raises(InputError, match=r"no record of this plan among .*: 1 no record of a step"):
        calibrate(mini_plan, work, [tmp_path / "other"], built_in)
    with pytest.raises(InputError, match="absent is missing"):
        calibrate(mini_plan, work, [tmp_path / "absent"], built_in)


def test_a_real_step_leaves_a_record_that_calibrates(mini, mini_plan, work):
    """The records of the miniature study, as the steps write them."""
    folders = [mini.results / name for name in ("data", "backbones", "fim")]
    found = calibrate(mini_plan, work, folders, built_in)
    assert found.used == len(mini_plan["datasets"]) + len(mini_plan["backbones"]) + len(mini_plan["fims"])
    assert found.skipped == {}
    changed = {key for key, constant in found.device.constants().items() if constant.source.startswith("measured: ")}
    assert changed == {"draw", "views", "slower.pretrain", "slower.hooks", "setup"}
