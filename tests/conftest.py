"""How the suite is run: one group a module, time by marker, one server a session."""

import os
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.tracking.postgres import PostgresServer, running_postgres

# Before torch is imported: the networks of tests are small, and tests run beside each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tables are as wide as in a pipe, whatever terminal the tests were started in.
os.environ.pop("COLUMNS", None)

#: Seconds a test may take, its fixtures counted in, unless it says otherwise; others: pyproject.
TIMEOUTS = {"slow": 1800, "integration": 300}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--times",
        action="store_true",
        help="print the time each file of tests takes, the longest first",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Settle the seed of generated cases before Hypothesis does, for all processes of a run.

    What every change must pass has the same cases each time; the slow tests look for new ones.
    """
    if config.option.hypothesis_seed is None:
        chosen = config.option.markexpr
        looks_on = "slow" in chosen and "not slow" not in chosen
        drawn = random.SystemRandom().getrandbits(32) if looks_on else 1
        config.option.hypothesis_seed = str(drawn)


def pytest_report_header(config: pytest.Config) -> str:
    return f"generated cases: --hypothesis-seed={config.option.hypothesis_seed}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its time and its group, and begin with what takes long."""
    for item in items:
        if item.get_closest_marker("timeout") is None:
            marker = next((name for name in TIMEOUTS if item.get_closest_marker(name)), None)
            if marker is not None:
                item.add_marker(pytest.mark.timeout(TIMEOUTS[marker]))
        if item.get_closest_marker("xdist_group") is None:
            # a module's cluster or server, kept by a fixture, is started by one process only
            item.add_marker(pytest.mark.xdist_group(item.location[0]))
    items.sort(key=lambda item: item.get_closest_marker("integration") is None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not terminalreporter.config.getoption("--times"):
        return
    seconds, tests = Counter[str](), Counter[str]()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                file = report.nodeid.partition("::")[0]
                seconds[file] += report.duration  # type: ignore[assignment]  # of floats
                tests[file] += report.when == "call"
    terminalreporter.section("seconds by file")
    for file, taken in seconds.most_common():
        terminalreporter.write_line(f"{taken:7.1f} s {tests[file]:5} tests  {file}")
    terminalreporter.write_line(f"{sum(seconds.values()):7.1f} s in all")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL for all tests that do not end it; each takes a database of its own."""
    with running_postgres() as server:
        yield server
