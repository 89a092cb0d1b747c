"""Reading plan.json: a damaged plan and an unknown name are sentences."""

import json

import pytest

from anchored.errors import ConfigError
from anchored.plan.load import load_plan, lookup, lookup_run


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is not valid JSON"),
        (b"{\"schema\": 1,", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[]", "has plan schema list, this version reads 1"),
        (b"{}", "has plan schema None, this version reads 1"),
        (b"{\"schema\": 99}", "has plan schema 99, this version reads 1"),
        (b"{\"schema\": 1, \"name\": \"x\"}", "is no whole plan: it lacks seed, threads, datasets"),
    ],
)
def test_damaged_plan(content, expected, tmp_path):
    """Engines load the plan while they parse: a KeyError there is a page of somebody else's traceback."""
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_plan(path)
    assert expected in caught.value.message
    assert str(path) in caught.value.message
    assert "anchored plan" in caught.value.hint


def test_absent_plan(tmp_path):
    """The first command of a new user is rarely `anchored plan`."""
    with pytest.raises(ConfigError, match="is missing") as caught:
        load_plan(tmp_path / "plan.json")
    assert "run `anchored plan`" in caught.value.hint
    with pytest.raises(ConfigError, match="cannot be read"):
        load_plan(tmp_path)


def test_plan_survives_its_file(mini_plan, tmp_path):
    """Numbers and orders of the file are those of the expansion: cells of a job run in the order of the grid."""
    (tmp_path / "plan.json").write_text(json.dumps(mini_plan))
    loaded = load_plan(tmp_path / "plan.json")
    assert loaded == mini_plan
    assert list(loaded["cells"]) == list(mini_plan["cells"])


def test_unknown_name_names_the_nearest(mini_plan):
    """A typing error costs one more command, not a search in a file of thousands of lines."""
    with pytest.raises(ConfigError, match="'scene' is not among the datasets of the plan") as caught:
        lookup(mini_plan, "datasets", "scene")
    assert caught.value.hint == "did you mean 'scenes'?"
    with pytest.raises(ConfigError) as caught:
        lookup(mini_plan, "datasets", "qqqq")
    assert caught.value.hint == "the plan has: scenes, bank. Another plan: --plan FILE."


def test_job_and_cell_are_both_runs(mini_plan):
    """`anchored finetune` takes either."""
    assert lookup_run(mini_plan, "res-resnet-1-erm-1") == mini_plan["baseline"]["res-resnet-1-erm-1"]["cells"]
    assert lookup_run(mini_plan, "res-resnet-1-erm-lr1e-3-r0") == ["res-resnet-1-erm-lr1e-3-r0"]
    with pytest.raises(ConfigError, match="'res-resnet-1-emr-1' is neither a job nor a cell of the plan") as caught:
        lookup_run(mini_plan, "res-resnet-1-emr-1")
    assert caught.value.hint == "did you mean 'res-resnet-1-erm-1'?"
