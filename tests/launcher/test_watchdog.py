"""When a silent Snakemake counts as hanging. Time is given here: the rule is about minutes."""

import pytest

from anchored.launcher.watchdog import Sight, Watchdog

SILENT = Sight(log_size=100, children=0, queued=0)


def looks(*sights: Sight, every: float = 10.0, patience: float = 60.0) -> list[bool]:
    watchdog = Watchdog(patience)
    return [watchdog.hangs(number * every, sight) for number, sight in enumerate(sights)]


def test_it_hangs_after_a_minute_of_silence_without_jobs():
    """The first look only learns how long the log is."""
    assert looks(*[SILENT] * 8) == [False] * 7 + [True]


@pytest.mark.parametrize(
    "sign",
    [Sight(100, 0, 3), Sight(100, 1, 0), Sight(120, 0, 0)],
    ids=["jobs in the queue", "a child at work", "a word in the log"],
)
def test_any_sign_of_life_starts_the_minute_anew(sign: Sight):
    after = Sight(sign.log_size, 0, 0)
    assert looks(*[SILENT] * 6, sign, *[after] * 6) == [False] * 13
    assert looks(*[SILENT] * 6, sign, *[after] * 7)[-1]


def test_a_controller_that_does_not_answer_is_no_empty_queue():
    """However long it is away, its jobs may run; when it answers, they are counted anew."""
    away = Sight(100, 0, None)
    assert not any(looks(*[SILENT] * 5, *[away] * 100))
    assert looks(*[SILENT] * 5, *[away] * 100, *[SILENT] * 7)[-2:] == [False, True]


def test_a_poll_interval_of_three_minutes_is_no_hang_by_default():
    """The plugin's longest: jobs that ended are out of the queue, and nobody has asked yet."""
    assert not any(looks(*[SILENT] * 20, Sight(200, 0, 0), every=10.0, patience=600.0))
