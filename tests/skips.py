"""What a test may be skipped for.

With `--strict-skips` a skip that is not listed here fails the run: a test that
no machine ever runs is none.
"""

import pytest

# Tests, without their parameters, that need root.
MAY_BE_SKIPPED = (
  # To mount a small disk; what else is in the first was tested.
  "tests/distributed/faults_test.py::test_what_a_run_survives",
  "tests/experiments/records/checkpointing_test.py"
  "::test_a_full_disk_leaves_all_as_it_was",
  "tests/experiments/records/full_disk_test.py"
  "::test_a_run_goes_on_while_the_disk_is_full",
  "tests/experiments/records/full_disk_test.py"
  "::test_an_end_that_cannot_be_saved_is_said",
  "tests/replay/reverb_server_test.py"
  "::test_a_disk_that_is_full_sooner_or_later",
  # For network namespaces, by iproute2.
  "tests/launchers/ray_test.py::test_what_a_run_on_a_cluster_survives",
)


def pytest_addoption(parser: pytest.Parser) -> None:
  """Adds the option."""
  parser.addoption(
    "--strict-skips",
    action="store_true",
    help="fail if a test is skipped that may not be (see tests/skips.py)",
  )


def _find_unexpected(config: pytest.Config) -> list[str]:
  """The tests that were skipped and are not listed above."""
  reporter = config.pluginmanager.get_plugin("terminalreporter")
  # Workers that run tests beside each other have none; who started them has.
  if reporter is None or not config.getoption("--strict-skips"):
    return []
  skipped = (report.nodeid for report in reporter.stats.get("skipped", []))
  return sorted(
    node for node in skipped if node.partition("[")[0] not in MAY_BE_SKIPPED
  )


def pytest_sessionfinish(session: pytest.Session) -> None:
  """Fails the run."""
  if _find_unexpected(session.config) and not session.exitstatus:
    session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
  """Says why."""
  for node in _find_unexpected(config):
    terminalreporter.write_line(f"Skipped, and may not be: {node}", red=True)
