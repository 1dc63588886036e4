"""A sweep that is extended by a command that is killed and repeated, at every moment."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.commands.verbs.driving import _extended
from orchestrator.loop.ownership import take
from orchestrator.specification.extensions import Extension
from tests.orchestrator.sweeps import Bench, specification, surveyed
from tracking.comparison.compare import compare
from tracking.errors import SweepHeldError
from tracking.places import Role

REQUEST = Extension(trials="+2", seeds=(4,))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.ledger.close()


def asked(bench: Bench, folder: Path) -> tuple[int, tuple[int, ...], bool]:
    """Return what the command makes of the sweep: trials, seeds, and whether it is known."""
    sweep, is_open = _extended("sweep", REQUEST, str(folder), None, None, None)
    return sweep.spec.search.trials, sweep.spec.seeds, is_open


def test_it_adds_once_however_often_it_is_killed(tmp_path: Path, bench: Bench) -> None:
    spec = specification(tracking={"store": str(tmp_path), "mlflow": "off"})
    take(bench.ledger, spec, surveyed(), extend=False)[0].lease.release()
    before = spec.search.trials
    for _ in range(2):  # killed before anything was stored
        assert asked(bench, tmp_path) == (before + 2, (1, 2, 4), False)
    for _ in range(2):  # killed after it was stored
        sweep, _ = _extended("sweep", REQUEST, str(tmp_path), None, None, None)
        writer, _ = take(bench.ledger, sweep.spec, surveyed(), extend=REQUEST)
        writer.lease.release()
        assert asked(bench, tmp_path) == (before + 2, (1, 2, 4), True)
    resumed, _ = take(bench.ledger, sweep.spec, surveyed(), extend=False)  # `resume` keeps it open
    assert asked(bench, tmp_path) == (before + 2, (1, 2, 4), True)
    resumed.fulfil()  # at its end
    assert asked(bench, tmp_path) == (before + 4, (1, 2, 4), False)


def test_asked_twice_at_a_time_it_adds_once(tmp_path: Path, bench: Bench) -> None:
    spec = specification(tracking={"store": str(tmp_path), "mlflow": "off"})
    take(bench.ledger, spec, surveyed(), extend=False)[0].lease.release()
    before = spec.search.trials
    first, second = (
        _extended("sweep", REQUEST, str(tmp_path), None, None, None)[0] for _ in range(2)
    )
    writer, _ = take(bench.ledger, first.spec, surveyed(), extend=REQUEST)
    with pytest.raises(SweepHeldError):
        take(bench.ledger, second.spec, surveyed(), extend=REQUEST)
    writer.fulfil()
    writer.lease.release()
    late, stored = take(bench.ledger, second.spec, surveyed(), extend=REQUEST)
    assert (stored.search.trials, stored.seeds) == (before + 2, (1, 2, 4))
    late.lease.release()


def test_arms_with_more_seeds_are_run_and_compared(tmp_path: Path, bench: Bench) -> None:
    bench.drive(specification())
    spec = specification(more_seeds={"l1": [7, 8]})
    driven = bench.drive(spec)
    assert driven.over
    reruns = [
        entry.place
        for entry in bench.ledger.entries(bench.ledger.sweep("sweep").id)
        if entry.place.role is Role.CONFIRM
    ]
    assert {(p.arm, p.index) for p in reruns} == {
        *(("l1", seed) for seed in (1, 2, 7, 8)),
        *(("geometric_median", seed) for seed in (1, 2)),
    }
    comparison = compare(bench.ledger, bench.ledger.sweep("sweep"))
    assert not comparison.missing
