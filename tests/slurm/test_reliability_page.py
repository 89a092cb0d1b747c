"""docs/reliability.md: its table is that of the tests, and its commands work."""

from fault_table import COMMANDS, faults_of_page, faults_of_tests


def test_the_table_lists_every_fault_that_is_tested():
    """Rows come from the tests; a fault without a row was never run with `make test-faults`."""
    assert faults_of_page() == faults_of_tests(), "run `make test-faults`."


def test_the_page_has_commands():
    """The tests that run them take them from here."""
    assert "anchored run" in COMMANDS
    assert "anchored run --profile slurm --cancel" in COMMANDS
