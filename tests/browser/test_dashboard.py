"""A search of ours in optuna-dashboard, in a real browser: importances and slices are drawn."""

import importlib
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from tests.browser.chromium import MISSING, PROGRAM, Browser, chromium
from tests.orchestrator.command_line import facts
from tests.orchestrator.sweeps import OFF, Bench, specification

PATIENCE_S = 120.0
PROPOSALS = 24

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.skipif(PROGRAM is None, reason=MISSING),
    pytest.mark.skipif(
        find_spec("optuna_dashboard") is None,
        reason="needs optuna-dashboard: `pip install optuna-dashboard`",
    ),
    # its own habits, and those of Bottle beneath it
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

#: Marks of every plot on the page, by the heading of the card that it is in.
DRAWN = """(() => {
  const found = {};
  for (const plot of document.querySelectorAll('.js-plotly-plot')) {
    const card = plot.closest('.MuiCard-root') ?? plot;
    const marks = plot.querySelectorAll('.bars .point, .scatterlayer .point').length;
    found[card.innerText] = marks + (found[card.innerText] ?? 0);
  }
  return found;
})()"""


class Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of requests."""


@pytest.fixture
def dashboard(tmp_path: Path) -> Iterator[str]:
    """Serve the searches of a small sweep; return the address."""
    search = {"trials": PROPOSALS, "window": 8, "proxy": True}
    bench = Bench(tmp_path)
    assert bench.drive(specification(arms=["l1"], search=search, controls=OFF)).over
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    facts("study", "sweep", "--to", url, "--store", tmp_path)
    app = importlib.import_module("optuna_dashboard").wsgi(url)
    with make_server("127.0.0.1", 0, app, handler_class=Silent) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/dashboard"
        server.shutdown()
        thread.join()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with chromium(tmp_path / "profile") as started:
        yield started


def until_drawn(browser: Browser, heading: str, marks: int) -> None:
    """Wait until a plot under a heading has that many marks."""
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        drawn: dict[str, int] = browser.evaluate(DRAWN)
        if any(heading in text and count >= marks for text, count in drawn.items()):
            return
        time.sleep(0.5)
    raise AssertionError(f"{heading!r} has no {marks} marks: {drawn}")


def test_importances_are_drawn_for_every_group(dashboard: str, browser: Browser) -> None:
    browser.open(f"{dashboard}/studies/1", 1400)
    until_drawn(browser, "Hyperparameter Importance", 3)
    text = browser.evaluate("document.body.innerText")
    assert "sweep/l1/macs-50%" in text


def test_slices_have_a_point_for_every_proposal(dashboard: str, browser: Browser) -> None:
    browser.open(f"{dashboard}/studies/1/analytics", 1400)
    until_drawn(browser, "Slice", PROPOSALS)
