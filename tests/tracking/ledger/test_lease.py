"""One driver per sweep: who holds it, how it ends, and what becomes of one that was frozen."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.checkout import ROOT
from tests.tracking.conftest import add
from tracking import FencedError, LeaseRecord, LedgerUnreachableError, SweepHeldError
from tracking.ledger.database import Database
from tracking.ledger.ledger import Ledger
from tracking.ledger.writer import SweepWriter
from tracking.processes import this_process

ELSEWHERE = replace(this_process(), host="far-away", place="another machine")

#: A driver with a short lease; whether it holds the sweep is on its standard output.
DRIVER = """
import sys, time
from tracking import Place
from tracking.ledger.database import Database
from tracking.ledger.ledger import Ledger
url, lease_s = sys.argv[1], float(sys.argv[2])
with Ledger.open(url) as ledger:
    writer = ledger.take_over("grid", "a process", lease_s=lease_s)
    with writer.lease.kept():
        print("driving", flush=True)
        while True:
            writer.check()
            time.sleep(0.01)
"""


def start_driver(url: str, lease_s: float) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, url, str(lease_s)],
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        text=True,
        cwd=ROOT,
    )


def until_it_drives(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "driving\n", process.communicate()[1]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lease_of(ledger: Ledger) -> LeaseRecord:
    found = ledger.lease(ledger.sweep("grid").id)
    assert found is not None
    return found


class TestHolding:
    def test_a_second_driver_is_told_who_holds_it(
        self, ledger: Ledger, writer: SweepWriter
    ) -> None:
        me, before = this_process(), ledger.sweep("grid")
        words = rf"'grid' is being run by process {me.pid} on {me.host} since 20.* UTC, until 20"
        with pytest.raises(SweepHeldError, match=words):
            ledger.take_over("grid", "second driver")
        assert ledger.sweep("grid") == before
        add(writer)  # and the first goes on

    def test_it_lasts_a_minute_by_the_clock_of_the_database(
        self, ledger: Ledger, writer: SweepWriter
    ) -> None:
        lease = lease_of(ledger)
        assert (lease.expires_at - lease.taken_at).total_seconds() == 60.0
        assert not lease.is_over

    def test_released_it_is_free(self, ledger: Ledger, writer: SweepWriter) -> None:
        with writer.lease.kept():
            pass
        assert ledger.lease(writer.sweep_id) is None
        assert ledger.take_over("grid", "second driver").epoch == 2

    def test_other_sweeps_are_not_held(self, ledger: Ledger, writer: SweepWriter) -> None:
        ledger.create_sweep("other", {}, "h")
        assert ledger.take_over("other", "second driver").epoch == 1

    def test_one_that_runs_elsewhere_is_held_until_it_expires(self, ledger: Ledger) -> None:
        ledger.create_sweep("grid", {}, "h")
        ledger.take_over("grid", "far away", process=ELSEWHERE, lease_s=0.5)
        with pytest.raises(SweepHeldError, match="on far-away"):
            ledger.take_over("grid", "second driver")
        until(lambda: lease_of(ledger).is_over)
        assert ledger.take_over("grid", "second driver").epoch == 2

    def test_a_process_of_this_machine_that_is_gone_holds_nothing(self, ledger: Ledger) -> None:
        ledger.create_sweep("grid", {}, "h")
        gone = replace(this_process(), birth="long ago")  # its number is another's by now
        ledger.take_over("grid", "gone", process=gone)
        assert lease_of(ledger).is_over
        assert ledger.take_over("grid", "second driver").epoch == 2


class TestKeeping:
    def test_it_is_put_off_while_its_driver_lives(self, ledger: Ledger) -> None:
        ledger.create_sweep("grid", {}, "h")
        writer = ledger.take_over("grid", "far away", process=ELSEWHERE, lease_s=0.8)
        with writer.lease.kept():
            until_s = time.monotonic() + 2.0
            while time.monotonic() < until_s:
                with pytest.raises(SweepHeldError):
                    ledger.take_over("grid", "second driver")
                time.sleep(0.1)
        writer.check()

    def test_an_outage_is_lived_through(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ledger.create_sweep("grid", {}, "h")
        writer = ledger.take_over("grid", "far away", process=ELSEWHERE, lease_s=0.4)
        clock, failures = ledger.database.clock, [0]

        def fail_at_first(connection: object) -> object:
            failures[0] += 1
            if failures[0] <= 2:
                raise LedgerUnreachableError(ledger.url, "the network is down")
            return clock(connection)  # type: ignore[arg-type]

        monkeypatch.setattr(ledger.database, "clock", fail_at_first)
        with writer.lease.kept():
            until(lambda: failures[0] > 4)
            writer.check()
        assert not writer.lease.is_lost

    def test_expired_but_not_taken_it_is_renewed(self, ledger: Ledger) -> None:
        ledger.create_sweep("grid", {}, "h")
        writer = ledger.take_over("grid", "far away", process=ELSEWHERE, lease_s=0.05)
        until(lambda: lease_of(ledger).is_over)
        writer.lease.renew()
        writer.check()
        add(writer)

    def test_a_driver_that_was_replaced_stops_without_writing(
        self, ledger: Ledger, writer: SweepWriter
    ) -> None:
        ledger.take_over("grid", "second driver", by_force=True)
        writer.check()  # it does not know yet
        writer.lease.renew()
        with pytest.raises(FencedError, match="taken over by second driver"):
            writer.check()
        writer.lease.release()  # not its own any more
        assert lease_of(ledger).taken_at is not None


@pytest.mark.integration
class TestDriversInProcesses:
    def test_the_second_is_refused_and_the_death_of_the_first_lets_it_in_at_once(
        self, ledger: Ledger, ledger_url: str
    ) -> None:
        ledger.create_sweep("grid", {}, "h")
        first = start_driver(ledger_url, lease_s=60.0)
        until_it_drives(first)
        second = start_driver(ledger_url, lease_s=60.0)
        _, words = second.communicate(timeout=60)
        assert second.returncode == 1
        assert f"is being run by process {first.pid} on" in words
        first.kill()
        first.communicate()
        third = start_driver(ledger_url, lease_s=60.0)
        until_it_drives(third)
        third.kill()
        third.communicate()

    def test_of_many_at_once_one_gets_it(self, ledger: Ledger, ledger_url: str) -> None:
        ledger.create_sweep("grid", {}, "h")
        drivers = [start_driver(ledger_url, lease_s=60.0) for _ in range(4)]
        until(lambda: sum(driver.poll() is not None for driver in drivers) == 3)
        (winner,) = (driver for driver in drivers if driver.poll() is None)
        assert lease_of(ledger).process.pid == winner.pid
        assert ledger.sweep("grid").epoch == 1
        for driver in drivers:
            driver.kill()
            _, words = driver.communicate()
            assert driver is winner or f"by process {winner.pid} on" in words

    def test_a_frozen_driver_loses_it_and_stops_when_it_wakes(
        self, ledger: Ledger, ledger_url: str
    ) -> None:
        ledger.create_sweep("grid", {}, "h")
        frozen = start_driver(ledger_url, lease_s=1.0)
        until_it_drives(frozen)
        frozen.send_signal(signal.SIGSTOP)
        until(lambda: lease_of(ledger).is_over)
        writer = ledger.take_over("grid", "its successor")
        frozen.send_signal(signal.SIGCONT)
        _, words = frozen.communicate(timeout=60)
        assert frozen.returncode == 1
        assert "FencedError: Sweep 'grid' was taken over by its successor (epoch 2)" in words
        assert lease_of(ledger).process == this_process()
        add(writer)


class TestAClockThatJumps:
    """Whatever the clock says the epoch keeps records in order; the lease must not get stuck."""

    @pytest.fixture
    def jump(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
        real = Database.clock

        def by(jump: timedelta) -> None:
            monkeypatch.setattr(Database, "clock", lambda self, c: real(self, c) + jump)

        return by

    def test_put_forward_it_is_renewed_by_the_new_time(
        self, ledger: Ledger, jump: Callable[[timedelta], None]
    ) -> None:
        ledger.create_sweep("grid", {}, "h")
        writer = ledger.take_over("grid", "me", process=ELSEWHERE)
        jump(timedelta(days=1))
        assert lease_of(ledger).is_over
        writer.lease.renew()
        assert not lease_of(ledger).is_over
        add(writer)

    def test_put_back_it_does_not_hold_the_sweep_for_as_long(
        self, ledger: Ledger, jump: Callable[[timedelta], None]
    ) -> None:
        ledger.create_sweep("grid", {}, "h")
        writer = ledger.take_over("grid", "me", process=ELSEWHERE)
        jump(timedelta(days=-1))
        assert lease_of(ledger).is_over  # its driver may be dead, for all that is known
        writer.lease.renew()
        assert not lease_of(ledger).is_over  # it lives
        with pytest.raises(SweepHeldError):
            ledger.take_over("grid", "another")

    def test_whoever_took_it_meanwhile_has_it_and_the_other_writes_nothing(
        self, ledger: Ledger, jump: Callable[[timedelta], None]
    ) -> None:
        ledger.create_sweep("grid", {}, "h")
        first = ledger.take_over("grid", "me", process=ELSEWHERE)
        jump(timedelta(hours=2))
        second = ledger.take_over("grid", "another")
        jump(timedelta(hours=-2))
        with pytest.raises(FencedError):
            add(first)
        first.lease.renew()
        assert first.lease.is_lost
        add(second)
