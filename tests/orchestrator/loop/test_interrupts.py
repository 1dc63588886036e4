"""Stop signals become one thing, wait for half-done work, and survive what libraries install."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from orchestrator.loop.interrupts import STOP_SIGNALS, handlers_kept, held_back, on_stop_signals
from tests.checkout import ROOT


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Begin as in a terminal: a suite that runs in the background was started ignoring some."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number in STOP_SIGNALS:
        is_ctrl_c = number is signal.SIGINT
        signal.signal(number, signal.default_int_handler if is_ctrl_c else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_each_interrupts(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), on_stop_signals():
        signal.raise_signal(number)


def test_what_nohup_ignores_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with on_stop_signals():
        signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_what_is_half_done_is_done_first() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), on_stop_signals(), held_back():  # noqa: PT012
        signal.raise_signal(signal.SIGTERM)
        done.append("all of it")
    assert done == ["all of it"]


def test_handlers_that_a_library_installs_do_not_stay() -> None:
    with pytest.raises(KeyboardInterrupt), on_stop_signals():  # noqa: PT012
        with handlers_kept():
            signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
        signal.raise_signal(signal.SIGTERM)


def test_a_library_that_ends_python_meanwhile_is_a_stop() -> None:
    with pytest.raises(KeyboardInterrupt), on_stop_signals(), handlers_kept():  # noqa: PT012
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
        signal.raise_signal(signal.SIGTERM)


def test_processes_of_a_library_outlive_the_terminal_and_this_one_hears_of_it_afterwards() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), on_stop_signals(), handlers_kept():  # noqa: PT012
        child = subprocess.run(
            [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGHUP)"],
            check=False,
        )
        # To this thread, which holds it back: another one of the process would take it at once.
        signal.pthread_kill(threading.get_ident(), signal.SIGHUP)
        done.append(child.returncode)
    assert done == [0]


#: A finder that finds no module, and sends this process a signal when one of a name is wanted.
AT_AN_IMPORT = """
import os, sys
class Finder:
    def find_spec(self, name, *_):
        if name == {name!r}:
            os.kill(os.getpid(), {number:d})
sys.meta_path.insert(0, Finder())
sys.argv = ["prunesweep", "models"]
import prunesweep
prunesweep.main()
"""


@pytest.mark.parametrize("number", STOP_SIGNALS)
@pytest.mark.parametrize("name", ["typer", "orchestrator.commands.verbs"])
def test_a_command_is_stopped_while_it_is_imported(number: signal.Signals, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", AT_AN_IMPORT.format(name=name, number=number)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Stopped.\n")
