"""What a plan costs: amounts counted by hand, and sums that add up."""

import copy
import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from cost_device import unit_device
from hypothesis import given, settings
from hypothesis import strategies as st

from anchored.cost.estimate import Sum, add, cost
from anchored.cost.flops import Flops, forward, head_values, size, stem, training
from anchored.cost.images import dataset_images
from anchored.cost.schedule import makespan
from anchored.cost.throughput import built_in
from anchored.cost.work import KINDS, What, Work, plan_work
from anchored.errors import ConfigError
from anchored.files import write_json
from anchored.paths import Paths
from anchored.plan.config import Config
from anchored.plan.expand import expand

TINY_VIT = {"family": "tiny-vit", "image": 20, "patch": 4, "width": 64, "depth": 4, "heads": 4}
TINY_RESNET = {"family": "tiny-resnet", "layers": (1, 1, 1, 1), "channels": (16, 32, 48, 64)}
NOWHERE = Paths(Path("no-such-folder"))


# --- operations ------------------------------------------------------------------------------------------------------------


def test_operations_of_a_vit_are_those_counted_by_hand():
    """25 patches and a class token, 64 wide, 4 blocks with a hidden layer four times as wide."""
    tokens, width = 26, 64
    block = 2 * tokens * width * (3 * width + width + 2 * 4 * width) + 2 * 2 * tokens**2 * width
    assert forward(TINY_VIT, 20) == Flops(matmul=4 * block, convolution=2 * 25 * (3 * 4 * 4) * width)


def test_operations_of_a_resnet_are_those_counted_by_hand():
    """A 3x3 stem of stride 2 to 64 channels; a stage is a block of two 3x3 convolutions and a 1x1 shortcut."""
    total, side, before = 2 * 10**2 * 9 * 3 * 64, 10, 64
    for stage, after in enumerate((16, 32, 48, 64)):
        side = side if stage == 0 else -(-side // 2)
        total += 2 * side**2 * (9 * before * after + 9 * after * after + before * after)
        before = after
    assert forward(TINY_RESNET, 20) == Flops(convolution=total)


def test_operations_of_the_published_backbones():
    """35.1 and 8.2 billion for a forward pass are the figures of the field; training three times as many, the stem's input less."""
    vit, resnet = ({"family": "timm", "name": name, "image": None} for name in ("vit_base_patch16_224.dino", "resnet50"))
    for architecture, billions in ((vit, 35.1), (resnet, 8.2)):
        one, both = forward(architecture, 224), training(architecture, 224)
        assert (one.matmul + one.convolution) / 1e9 == pytest.approx(billions, rel=0.01)
        assert (both.matmul + both.convolution) / (one.matmul + one.convolution) == pytest.approx(3, rel=0.02)
    assert forward(vit, 96).matmul < forward(vit, 224).matmul / 4
    assert size(vit).parameters == 85_798_656


def test_frozen_stages_cost_no_gradient():
    """The backward pass ends where nothing before it trains; freezing the stem alone saves its filters only."""
    costs = [training(TINY_RESNET, 20, frozen=frozen).convolution for frozen in (None, 0, 1, 2, 3)]
    assert costs == sorted(costs, reverse=True)
    assert forward(TINY_RESNET, 20).convolution < costs[-1] < costs[0]


@pytest.mark.parametrize(("layers", "values"), [(3, 4 * 8 + 8 * 8 + 8 * 5 + 5 * 7), (2, 4 * 8 + 8 * 5 + 5 * 7), (1, 4 * 5 + 5 * 7)])
def test_head_has_as_many_layers_as_the_plan_says(layers, values):
    """The released heads have three and two."""
    assert head_values(4, {"layers": layers, "hidden": 8, "bottleneck": 5, "prototypes": 7}) == values


def test_unknown_architecture_is_a_clear_error(run_cli, root, tmp_path):
    """Nobody should learn of a misspelt name after a day of other jobs."""
    config = yaml.safe_load((root / "tests/mini.yaml").read_text())
    config["backbones"]["resnet"]["architecture"] = {"family": "timm", "name": "resnet5o"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    done = run_cli("plan", "--cost", "--config", str(tmp_path / "config.yaml"))
    assert done.code == 2
    assert "timm has no model 'resnet5o'." in done.err
    assert "resnet50" in done.err


# --- jobs ------------------------------------------------------------------------------------------------------------------


def test_a_training_job_is_what_its_cells_do(mini_plan, work):
    """2 rates x 2 replicates of 2 epochs on 64 images; val (40) and test (48) after each, since all are candidates."""
    architecture = mini_plan["backbones"]["resnet-1"]["architecture"]
    found = work["baseline", "res-resnet-1-erm-1"]
    cells, epochs, seen = 4, 2, 40 + 48
    operations = training(architecture, 20) * (cells * epochs * 64) + forward(architecture, 20) * (cells * epochs * seen)
    numbers = size(architecture)
    network = 4 * (numbers.state + (numbers.width + 1) * 2)
    expected = {
        What("convolution", "fp32"): operations.convolution,
        What("read"): cells * epochs * (64 + seen) * 20 * 20 * 3,
        # AdamW keeps two values a parameter; the state after the last epoch is the network alone.
        What("state"): cells * (network + 2 * 4 * numbers.parameters + network),
        What("start"): 1,
        What("setup"): 1,
    }
    assert found.amounts == expected
    assert found.images == cells * epochs * (64 + seen)
    assert found.disk["models"] == cells * network
    assert found.disk["predictions"] == cells * round(epochs * seen * 8.2)
    assert unit_device().seconds(found.amounts) == pytest.approx(sum(expected.values()))
    assert unit_device(**{"convolution.fp32": 2.0}).seconds(found.amounts) == pytest.approx(
        sum(expected.values()) - operations.convolution / 2
    )


def test_stages_that_all_arms_leave_fixed_run_once_a_job(mini_plan, work):
    """2 rates x 2 replicates, which are 2 draws: every image of a draw passes the stem and a stage once, then the rest as ever."""
    plan = copy.deepcopy(mini_plan)
    for cell in plan["cells"].values():
        cell["training"]["frozen_stages"] = 1
    architecture = plan["backbones"]["resnet-1"]["architecture"]
    first, rest = stem(architecture, 20, 1), 4 * 2 * (64 + 40 + 48)
    assert 0 < first.convolution < forward(architecture, 20).convolution
    whole = training(architecture, 20, frozen=1) * (4 * 2 * 64) + forward(architecture, 20) * (4 * 2 * (40 + 48))
    found = plan_work(plan, NOWHERE)["baseline", "res-resnet-1-erm-1"].amounts
    once = 2 * (64 + 40 + 48)
    assert found[What("convolution", "fp32")] == pytest.approx(whole.convolution + first.convolution * (once - rest))
    assert found[What("read")] == once * 20 * 20 * 3
    assert found[What("state")] == work["baseline", "res-resnet-1-erm-1"].amounts[What("state")]


def test_a_fim_is_all_views_of_all_images(mini_plan, work):
    """vit-fim: 12 images of two large crops; `sampled` asks no teacher; 8 images again, in fp32 and in float64, for the error."""
    architecture = mini_plan["backbones"]["vit"]["architecture"]
    each = training(architecture, 20) * 2 + Flops(matmul=2 * (2 * 2 * (16 * 16 + 16 * 16 + 16 * 8 + 8 * 12)))
    again = 3.5 * 8
    amounts = work["whole", "vit-fim"].amounts
    assert amounts[What("matmul", "fp32", "hooks")] == pytest.approx(each.matmul * (12 + again))
    assert amounts[What("convolution", "fp32", "hooks")] == pytest.approx(each.convolution * (12 + again))
    assert amounts[What("views")] == 12 * 2 * 20 * 20
    assert amounts[What("read")] == 12 * 20 * 20 * 7


def test_the_estimator_teacher_adds_forward_passes_of_the_teacher(mini_plan):
    """Of the two large crops, backbone and head."""
    changed = copy.deepcopy(mini_plan)
    changed["fims"]["vit-fim"]["estimator"] = "teacher"
    before, after = (plan_work(plan, NOWHERE)["whole", "vit-fim"].amounts for plan in (mini_plan, changed))
    one = forward(mini_plan["backbones"]["vit"]["architecture"], 20).matmul + 2 * (16 * 16 + 16 * 16 + 16 * 8 + 8 * 12)
    matmul = What("matmul", "fp32", "hooks")
    assert after[matmul] - before[matmul] == pytest.approx(2 * one * (12 + 3.5 * 8))


def test_shards_do_together_what_the_whole_does(root):
    """Splitting a FIM costs starts and a merge, nothing else."""
    config = yaml.safe_load((root / "tests/mini.yaml").read_text())
    whole = plan_work(expand(Config.model_validate(config)), NOWHERE)["whole", "fim-1"]
    config["fims"]["fim"]["shards"] = 2
    split = {job: each for job, each in plan_work(expand(Config.model_validate(config)), NOWHERE).items() if "fim-1" in job[1]}
    assert [job[0] for job in split] == ["shards", "shards", "merged"]
    parts = [split["shards", f"fim-1-shard-{number}"] for number in (1, 2)]
    for what in whole.amounts:
        if what.name not in ("start", "setup"):
            assert sum(part.amounts[what] for part in parts) == pytest.approx(whole.amounts[what]), what
    assert split["merged", "fim-1"].needs == {("shards", "fim-1-shard-1"), ("shards", "fim-1-shard-2")}


def test_probes_of_a_job_share_the_features_of_a_draw(mini_plan, work):
    """Two penalties of two replicates, which are two draws."""
    found = work["baseline", "res-resnet-1-linear-probe-1"]
    assert found.images == 2 * (64 + 40 + 48)
    assert found.amounts[What("fit")] == 4 * 64 * size(mini_plan["backbones"]["resnet-1"]["architecture"]).width


def test_every_planned_job_is_counted_once(mini_plan, work):
    """A job left out makes a plan look cheap, one counted twice makes it look dear."""
    planned = [(kind, name) for kind in KINDS for name in mini_plan[kind]] + [("evaluate", ""), ("tables", "")]
    assert Counter(work.keys()) == Counter(planned)
    assert sum(kind in ("baseline", "anchored") for kind, _ in work) == len(mini_plan["baseline"]) + len(mini_plan["anchored"])
    found = cost(mini_plan, work, "unit", unit_device(), 1)
    assert found.total.jobs == sum(part.jobs for part in found.steps.values()) == len(planned)
    assert sum(part.jobs for part in found.experiments.values()) == len(mini_plan["baseline"]) + len(mini_plan["anchored"])
    assert work["evaluate", ""].needs >= {job for job in work if job[0] in ("baseline", "anchored")}
    ewc = work["anchored", "vit-vit-ewc-1"].needs
    assert ewc == {("datasets", "scenes"), ("backbones", "vit"), ("whole", "vit-fim")}


def test_size_of_a_folder_is_known_once_it_is_prepared(root, tmp_path):
    """Nothing is guessed; what is missing is one command away."""
    config = yaml.safe_load((root / "tests/mini.yaml").read_text())
    config["datasets"]["bank"] = {"reader": "images", "folder": "photos", "size": 20}
    for part in (*config["backbones"].values(), *config["fims"].values()):
        (part.get("pretraining") or part)["views"] = {}
    plan = expand(Config.model_validate(config))
    with pytest.raises(ConfigError, match=r"(?s)how many images dataset 'bank' has .* run `anchored prepare bank` first") as error:
        plan_work(plan, Paths(tmp_path))
    assert error.value.exit_code == 2
    write_json(Paths(tmp_path).data("bank") / "manifest.json", {"shape": [48, 20, 20, 3], "groups": {}})
    assert plan_work(plan, Paths(tmp_path))["datasets", "bank"].amounts[What("decode")] == 48


FILES = {"reader": "waterbirds", "folder": "birds", "size": 32}


@pytest.mark.parametrize(
    ("entry", "images", "stored"),
    [
        (FILES, 11_788, 11_788 * 32 * 32 * 3),
        ({**FILES, "storage": "zstd"}, 11_788, round(11_788 * 32 * 32 * 3 * 0.4)),
        ({"reader": "celeba", "folder": "faces", "size": 32}, 202_599, 202_599 * 32 * 32 * 3),
        ({"reader": "training-images", "of": "birds"}, 4_795, 4_795 * 32 * 32 * 3),
        ({"reader": "training-images", "of": "birds", "limit": 100, "size": 16}, 100, 100 * 16 * 16 * 3),
    ],
)
def test_published_sizes_are_known_before_preparing(entry, images, stored):
    """Also of a bank of the training images; a compressed store takes less."""
    datasets = {"birds": FILES, "asked": entry}
    plan = expand(Config.model_validate({"name": "sizes", "datasets": datasets, "backbones": {}, "experiments": {}}))
    found = plan_work(plan, NOWHERE)["datasets", "asked"]
    assert (found.images, found.disk) == (images, {"packed images": stored})


def test_a_dataset_of_one_s_own_has_the_classes_of_its_manifest(tmp_path):
    """Each is a column of stored logits."""
    entry = {"reader": "folder", "folder": "birds", "size": 20}
    plan = expand(Config.model_validate({"name": "own", "datasets": {"own": entry}, "backbones": {}, "experiments": {}}))
    manifest = {"shape": [6, 20, 20, 3], "groups": {"train": {"0": 6}}, "classes": {"0": "a", "1": "b", "2": "c"}}
    write_json(Paths(tmp_path).data("own") / "manifest.json", manifest)
    assert dataset_images(plan, "own", Paths(tmp_path)).classes == 3


@pytest.mark.parametrize(("origin", "networks"), [("trained", 1), ("checkpoint", 2)])
def test_an_imported_network_is_stored_once(origin, networks):
    """Heads that are trained on it share it; a full checkpoint has student and teacher."""
    backbone = {"architecture": TINY_VIT, "weights": {"checkpoint": "w.pth"}, "head": {"bank": "birds", "from": origin, "dino": {}}}
    datasets = {"birds": {"reader": "images", "folder": "birds", "limit": 4096}}
    plan = expand(
        Config.model_validate({"name": "heads", "datasets": datasets, "backbones": {"vit": backbone}, "experiments": {}})
    )
    values, dino = size(TINY_VIT), plan["backbones"]["vit"]["head"]["dino"]
    expected = 4 * (networks * values.state + 2 * head_values(values.width, dino) + dino["prototypes"])
    assert plan_work(plan, NOWHERE)["backbones", "vit"].disk == {"backbones": expected}


def test_sizes_before_preparing_are_those_of_the_manifest(mini, mini_plan, work):
    """The same plan costs the same before and after `anchored prepare`."""
    for name in mini_plan["datasets"]:
        manifest = json.loads((mini.data(name) / "manifest.json").read_text())
        stored, height, width, channels = manifest["shape"]
        assert work["datasets", name].images == stored
        assert work["datasets", name].disk == {"packed images": stored * height * width * channels}


def test_stored_bytes_are_about_those_of_the_files(mini, mini_plan, work):
    """Headers and batch-norm statistics aside."""
    for kind, folder, file in (("backbones", mini.backbone, "model.safetensors"), ("whole", mini.fim, "fim.safetensors")):
        for name in mini_plan[kind]:
            stored = (folder(name) / file).stat().st_size
            assert 0.6 < sum(work[kind, name].disk.values()) / stored <= 1.0, name


# --- sums ------------------------------------------------------------------------------------------------------------------


@given(st.sets(st.integers(0, 30)))
@settings(max_examples=30, deadline=None)
def test_the_cost_of_two_parts_is_the_cost_of_both(mini_plan, work, numbers):
    """Any part of a plan costs its part; only the time on several devices is no sum."""
    jobs = list(work)
    chosen = {jobs[number % len(jobs)] for number in numbers}
    # A job alone needs nothing: what it waits for may be in the other part.
    alone = {job: vars(each) | {"needs": frozenset()} for job, each in work.items()}
    parts = [{job: Work(**alone[job]) for job in jobs if (job in chosen) == inside} for inside in (True, False)]
    device = built_in(True)
    left, right = (cost(mini_plan, part, "h100", device, 1) for part in parts)
    both = cost(mini_plan, work, "h100", device, 1)
    for key, value in vars(add([left.total, right.total])).items():
        assert value == pytest.approx(getattr(both.total, key)), key
    for step, expected in both.steps.items():
        found = left.steps.get(step, Sum()) + right.steps.get(step, Sum())
        assert found.gpu_hours == pytest.approx(expected.gpu_hours)


def test_hours_are_seconds_of_jobs_and_their_threads(mini_plan, work):
    """Jobs that ask for no GPU cost cores only; on a device without one nothing costs GPU hours."""
    plan = mini_plan | {"threads": 4}
    rates = unit_device(start=3600.0)
    one = Counter({What("start"): 1})
    only_starts = {job: Work(each.step, None, one, 0, each.needs, each.gpu) for job, each in work.items()}
    found = cost(plan, only_starts, "unit", rates, 1)
    assert found.total.cpu_hours == pytest.approx(4 * len(work))
    assert found.total.gpu_hours == pytest.approx(sum(each.gpu for each in work.values()))
    assert found.total.longest_seconds == 3600
    without = cost(plan, only_starts, "cores", rates.model_copy(update={"gpu": False}), 1)
    assert without.total.gpu_hours == 0
    assert without.wall_seconds == pytest.approx(3600 * len(work))


def test_makespan_by_hand():
    """Two devices; c waits for a, d for all; e needs no device."""
    a, b, c, d, e = ((letter, "") for letter in "abcde")
    seconds = {a: 2.0, b: 5.0, c: 4.0, d: 1.0, e: 6.5}
    needs = {a: set(), b: set(), c: {a}, d: {b, c, e}, e: set()}
    held = {a, b, c, d}
    assert makespan(seconds, needs, held, 2) == 7.5  # a then c on one, b on the other; e ends at 6.5
    assert makespan(seconds, needs, held, 1) == 12.0
    assert makespan(seconds, needs, held, 9) == 7.5


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=30), st.integers(1, 5))
def test_makespan_lies_between_its_bounds(values, slots):
    """Greedy scheduling is at most the work of a device plus the longest job away from it."""
    seconds = {("job", str(number)): value for number, value in enumerate(values)}
    found = makespan(seconds, {job: set() for job in seconds}, set(seconds), slots)
    assert max(max(values), sum(values) / slots) - 1e-9 <= found <= sum(values) / slots + max(values) + 1e-9


def test_more_devices_take_no_longer(mini_plan, work):
    """From one device to as many as there are jobs."""
    times = [cost(mini_plan, work, "h100", built_in(True), slots).wall_seconds for slots in (1, 2, 4, 64)]
    assert times == sorted(times, reverse=True)
    assert times[-1] < times[0]
