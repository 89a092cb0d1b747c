"""What `dvc metrics diff` and `dvc plots diff` show of two commits."""

import json
from pathlib import Path
from typing import Any

import pytest
from checkout import Checkout

pytestmark = pytest.mark.workflow
METRICS = "results/tables/metrics.json"


@pytest.fixture(scope="module")
def two_commits(by_dvc: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A commit with the results of the miniature study, and one after another learning rate of one arm."""
    checkout = by_dvc.copy(tmp_path_factory.mktemp("commits") / "checkout")
    checkout.commit("first results")
    checkout.edit("config.yaml", "erm: {lr: [1.0e-3]}", "erm: {lr: [3.0e-2]}")
    checkout.compile()
    checkout.run("dvc", "repro")
    checkout.commit("a higher rate")
    return checkout


def metrics(checkout: Checkout, revision: str) -> dict[str, Any]:
    return json.loads(checkout.run("git", "show", f"{revision}:{METRICS}").stdout)["res"]["val-wga"]["tuned"]


def test_a_changed_rate_shows_as_rows_of_old_and_new(two_commits: Checkout):
    before, after = (metrics(two_commits, revision) for revision in ("HEAD~1", "HEAD"))
    assert before["erm"]["adjusted"] != after["erm"]["adjusted"]
    lines = two_commits.run("dvc", "metrics", "diff", "HEAD~1", "HEAD").stdout.splitlines()
    assert lines[0].split() == ["Path", "Metric", "HEAD~1", "HEAD", "Change"]
    found = {line.split()[1]: line.split()[2:4] for line in lines[1:]}
    shown = found["res.val-wga.tuned.erm.adjusted"]
    assert [float(value) for value in shown] == pytest.approx([before["erm"]["adjusted"], after["erm"]["adjusted"]], rel=1e-4)


def test_what_did_not_change_is_not_shown(two_commits: Checkout):
    assert metrics(two_commits, "HEAD~1")["ewc"] == metrics(two_commits, "HEAD")["ewc"]
    assert ".ewc." not in two_commits.run("dvc", "metrics", "diff", "HEAD~1", "HEAD").stdout


def test_the_curves_of_both_commits_stand_in_one_plot(two_commits: Checkout):
    done = two_commits.run("dvc", "plots", "diff", "HEAD~1", "HEAD", "--json")
    (plot,) = json.loads(done.stdout)["data"]["results/tables/strength.json"]
    points = {(point["rev"], point["arm"], point["strength"]) for point in plot["content"]["data"]["values"]}
    assert points == {(revision, "ewc", strength) for revision in ("HEAD~1", "HEAD") for strength in (1.0, 30.0)}
    encoding = plot["content"]["spec"]["encoding"]
    assert (encoding["x"]["field"], encoding["y"]["field"]) == ("strength", "wga")
    assert (encoding["color"]["field"], encoding["strokeDash"]["field"]) == ("arm", "rev")


def test_the_plots_become_a_page_that_git_ignores(two_commits: Checkout):
    two_commits.run("dvc", "plots", "diff", "HEAD~1", "HEAD")
    assert "vega" in (two_commits.path / "dvc_plots" / "index.html").read_text()
    assert two_commits.run("git", "status", "--porcelain").stdout == ""


def test_without_anchored_arms_there_are_metrics_and_no_curves(two_commits: Checkout, tmp_path: Path):
    """DVC must not stumble over a plot without points."""
    checkout = two_commits.copy(tmp_path / "checkout")
    (checkout.path / "results" / "tables" / "strength.json").write_text("[]\n")
    checkout.run("dvc", "plots", "diff", "HEAD")
    shown = json.loads(checkout.run("dvc", "metrics", "show", "--json").stdout)[""]["data"][METRICS]["data"]
    assert shown["res"]["val-wga"]["tuned"] == metrics(checkout, "HEAD")
