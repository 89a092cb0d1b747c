"""A mistake in a configuration becomes a sentence with file, key and remedy, and exit code 2."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anchored.errors import ConfigError
from anchored.plan.expand import expand
from anchored.plan.read import read_config

DEMO = (Path(__file__).parents[2] / "config/demo.yaml").read_text()

# name: (text to replace, replacement, what the user must read)
EDITS = {
    "unknown key": (
        "replicates: 4", "replicate: 5", "experiments.digitscenes: unknown key 'replicate'; did you mean 'replicates'?",
    ),
    "unknown key far from all": ("replicates: 4", "zzz: 5", "unknown key 'zzz'; known keys: dataset, backbone, fim"),
    "unknown top-level key": (
        "backbones:", "backbone:", "top level: unknown key 'backbone'; did you mean 'backbones'?",
    ),
    "unknown arm": ("linear-probe:", "linear_probe:", "unknown key 'linear_probe'; did you mean 'linear-probe'?"),
    "unknown enum": ("estimator: teacher", "estimator: tutor", "fims.dino.estimator: Input should be 'teacher' or 'sampled'"),
    "unknown family": ("family: tiny-resnet", "family: resnet", "backbones.tiny-resnet.architecture: "),
    "negative count": ("images: 512", "images: -1", "fims.dino.images: Input should be greater than or equal to 1 (given: -1)"),
    "text for a number": ("images: 512", "images: many", "fims.dino.images: Input should be a valid integer"),
    "zero rate": ("head_lr: 1.0e-2", "head_lr: 0", "experiments.digitscenes.training.head_lr: Input should be greater than 0"),
    "NaN rate": ("head_lr: 1.0e-2", "head_lr: .nan", "experiments.digitscenes.training.head_lr: "),
    "infinite strength": ("c: [1.0e-4,", "c: [.inf,", "arms.linear-probe.c.0: Input should be a finite number"),
    "fraction above one": (
        "infonce: {weight: [3.0, 2.0]}", "warmup: 1.5",
        "backbones.tiny-resnet.pretraining.warmup: Input should be less than or equal to 1",
    ),
    "empty grid": ("stages: [1, 2, 3]", "stages: []", "arms.freeze.stages: "),
    "wrong reference": ("fim: dino", "fim: dinosaur", "experiments.digitscenes.fim: 'dinosaur' is not defined; known: dino"),
    "bank as dataset": (
        "    dataset: digitscenes\n", "    dataset: digitscenes-bank\n",
        "experiments.digitscenes.dataset: 'digitscenes-bank' is an unlabelled bank",
    ),
    "dataset as bank": (
        "bank: digitscenes-bank\n    images", "bank: digitscenes\n    images",
        "fims.dino.bank: 'digitscenes' is a labelled dataset",
    ),
    "list for a mapping": ("  dino:\n    backbone", "  - dino:\n    backbone", "fims: Input should be a valid dictionary"),
    "list for a section": ("copies: 2", "copies: 2\n    weights: [a]", "backbones.tiny-resnet.weights: "),
    "missing key": ("      probe: digitscenes\n", "", "backbones.tiny-resnet.pretraining.probe: Field required"),
    "value inside a union": (
        "{family: tiny-resnet}", "{family: tiny-resnet, layers: [1, 1, 1, 0]}",
        "backbones.tiny-resnet.architecture.layers.3: Input should be greater than or equal to 1",
    ),
    "two sources of weights": ("copies: 2", "copies: 2\n    weights: {timm: true}", "give either pretraining or weights"),
    "misspelt contrast": ("replicates: 4", "replicates: 4\n    contrasts: [[ewc, l2ps]]", "contrasts.0.1: Input should be 'erm'"),
    "baseline that is no arm": (
        "replicates: 4", "replicates: 4\n    baseline: lp",
        "experiments.digitscenes.baseline: Input should be 'erm'",
    ),
    "reversed range": (
        "draws: 4", "draws: 4\n    scene: {tint: [1.0, 0.5]}",
        "scene.tint: the first number is the lower one, but 1.0 > 0.5",
    ),
    "infinite mean": (
        "copies: 2", "copies: 2\n    mean: [.inf, 0, 0]",
        "backbones.tiny-resnet.mean.0: Input should be a finite number",
    ),
    "split not divisible": (
        "draws: 4", "draws: 4\n    val: 30",
        "datasets.digitscenes: val must be a multiple of 4, the number of groups",
    ),
    "capital name": ("name: demo", "name: Demo", "name: String should match pattern"),
    "dot in a name": ("  dino:\n", "  dino.v1:\n", "fims.dino.v1"),
    "duplicate key": ("draws: 4", "draws: 4\n    draws: 6", "duplicate key 'draws'"),
    "key that is a list": ("draws: 4", "? [a, b]\n    : 5", "is no text"),
    "tab": ("    draws: 4", "\tdraws: 4", "is not valid YAML"),
    "unclosed bracket": ("stages: [1, 2, 3]", "stages: [1, 2, 3", "is not valid YAML"),
    "python object": ("name: demo", "name: !!python/object/apply:os.getcwd []", "is not valid YAML"),
}


def refusal(tmp_path: Path, text: str) -> ConfigError:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        expand(read_config(path))
    assert caught.value.exit_code == 2
    assert str(path) in caught.value.message
    return caught.value


@pytest.mark.parametrize("name", EDITS)
def test_mistake_is_named(name, tmp_path):
    """Every one of these was a traceback or was silently ignored in some other tool."""
    old, new, expected = EDITS[name]
    assert DEMO.count(old) == 1
    error = refusal(tmp_path, DEMO.replace(old, new))
    assert expected in error.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty, not a mapping of keys"),
        ("# only a comment\n", "is empty, not a mapping of keys"),
        ("- a\n- b\n", "is a list, not a mapping of keys"),
        ("demo", "is a str, not a mapping of keys"),
        ("{}", "name: is missing; add `name: NAME`."),
        ("name: a\ndatasets: {}\nexperiments: {}", "backbones: is missing; add `backbones:` with an entry for each of them, or"),
        ("name: a\ndatasets: {}\nbackbones: {}", "experiments: is missing; add `experiments:` with an entry for each of them, or"),
    ],
)
def test_file_without_keys(text, expected, tmp_path):
    """An empty file is the first thing that a new user has."""
    error = refusal(tmp_path, text)
    assert expected in error.message
    assert "config/README.md" in error.hint


def test_a_part_of_the_file_can_be_merged_into_another(tmp_path):
    """`<<` of YAML: one grid for several arms. What an arm says itself counts, and to say it is no duplicate."""
    grid = "{lr: [1.0e-3], strength: [0.1, 1.0, 3.0, 10.0, 30.0, 100.0]}"
    merged = DEMO.replace(f"l2sp: {grid}", f"l2sp: &grid {grid}")
    merged = merged.replace(f"ewc: {grid}", "ewc: &rate {<<: *grid, lr: [2.0e-3]}")
    merged = merged.replace(f"ewc-shuffled: {grid}", "ewc-shuffled: {<<: *rate}")
    assert merged.count("*") == DEMO.count("*") + 2
    plain = DEMO
    for arm in ("ewc", "ewc-shuffled"):
        plain = plain.replace(f" {arm}: {grid}", f" {arm}: {grid.replace('[1.0e-3]', '[2.0e-3]')}")
    configs = []
    for text in (merged, plain):
        (tmp_path / "study.yaml").write_text(text)
        configs.append(read_config(tmp_path / "study.yaml"))
    assert configs[0] == configs[1]
    assert configs[0].experiments["digitscenes"].arms.ewc.lr == (2.0e-3,)
    assert "duplicate key 'lr'" in refusal(tmp_path, merged.replace("lr: [2.0e-3]", "lr: [1.0e-3], lr: [2.0e-3]")).message
    assert "expected a mapping" in refusal(tmp_path, merged.replace("{<<: *rate}", "{<<: 3}")).message


def test_a_merged_part_inside_of_a_list(tmp_path):
    """Lists are filled after what follows them, unless told otherwise: a part that is merged twice then has its keys twice."""
    text = "name: a\ndatasets: [&a {k: 1}, &b {<<: *a, k: 2}]\nbackbones: {<<: *b}\nexperiments: {}"
    assert "datasets: Input should be a valid dictionary" in refusal(tmp_path, text).message


def test_unreadable_files(tmp_path):
    """A missing file, a folder, and bytes that are no text."""
    with pytest.raises(ConfigError, match="is missing") as caught:
        read_config(tmp_path / "none.yaml")
    assert caught.value.hint == "pass --config FILE."
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "latin.yaml")


def test_all_mistakes_are_reported_at_once(tmp_path):
    """One run, one list: nobody wants to meet five mistakes one at a time."""
    text = DEMO.replace("images: 512", "images: 0").replace("epochs: 8", "epochs: 0")
    message = refusal(tmp_path, text).message
    assert "fims.dino.images" in message
    assert "experiments.digitscenes.training.epochs" in message


def test_teacher_of_imported_weights_is_refused(tmp_path):
    """An imported file is one network: asking for its teacher failed only when fine-tuning started."""
    start, stop = DEMO.index("    copies: 2"), DEMO.index("fims:")
    head = "    head: {bank: digitscenes-bank, from: trained}\n"
    text = DEMO[:start] + "    weights: {checkpoint: a.pth}\n    anchor: teacher\n" + head + "\n" + DEMO[stop:]
    assert "anchor: teacher needs pretraining or a full checkpoint" in refusal(tmp_path, text).message


# What replaces the demo's pre-training, and what the user must read.
IMPORTS = {
    "no loss": ("weights: {checkpoint: a.pth}", "fims.dino.backbone: 'tiny-resnet' is imported without a head"),
    "head of one's own": ("copies: 2\n    head: {bank: digitscenes-bank, from: trained}", "give either pretraining or weights"),
    "no heads in timm's weights": (
        "architecture: {family: timm, name: resnet50}\n"
        "    weights: {timm: true}\n    head: {bank: digitscenes-bank, from: checkpoint}",
        "head.from: checkpoint needs weights.checkpoint",
    ),
    "where from": (
        "weights: {checkpoint: a.pth}\n    head: {bank: digitscenes-bank, from: thin air}",
        "backbones.tiny-resnet.head.from: Input should be 'checkpoint' or 'trained'",
    ),
    "labelled bank": (
        "weights: {checkpoint: a.pth}\n    head: {bank: digitscenes, from: trained}",
        "backbones.tiny-resnet.head.bank: 'digitscenes' is a labelled dataset",
    ),
    "unknown bank": (
        "weights: {checkpoint: a.pth}\n    head: {bank: imagenet, from: trained}",
        "backbones.tiny-resnet.head.bank: 'imagenet' is not defined",
    ),
}


@pytest.mark.parametrize("name", IMPORTS)
def test_mistake_about_an_import_is_named(name, tmp_path):
    """When the plan is made, not after hours of waiting for the backbone."""
    start, stop = DEMO.index("    architecture:"), DEMO.index("fims:")
    entry, expected = IMPORTS[name]
    lines = entry if entry.startswith("architecture") else f"architecture: {{family: tiny-resnet}}\n    {entry}"
    assert expected in refusal(tmp_path, DEMO[:start] + f"    {lines}\n\n" + DEMO[stop:]).message


LINES = DEMO.splitlines()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(LINES) - 1), st.sampled_from(["drop", "indent", "dedent", "colon", "null", "list", "number"]))
def test_no_damage_to_a_line_gives_a_traceback(tmp_path_factory, number, damage):
    """Whatever a slip of the hand does to a line, the user gets a plan or a sentence."""
    line = LINES[number]
    key = line.split(":")[0]
    changed = {
        "drop": [], "indent": [f"  {line}"], "dedent": [line[2:]], "colon": [line.replace(":", "", 1)],
        "null": [f"{key}:"], "list": [f"{key}: [1, a]"], "number": [f"{key}: 3.5"],
    }[damage]
    path = tmp_path_factory.getbasetemp() / "damaged.yaml"
    path.write_text("\n".join([*LINES[:number], *changed, *LINES[number + 1 :]]))
    with contextlib.suppress(ConfigError):  # any other exception is a traceback for the user
        assert expand(read_config(path))["cells"]
