"""Shares of a GPU by what trials were seen to need."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cluster.packing import MOST_PER_GPU, Packing

GIB = 1 << 30


def test_a_worker_takes_a_whole_gpu_until_a_trial_was_measured() -> None:
    assert Packing().share == 1.0


@pytest.mark.parametrize(
    ("peak", "total", "share"),
    [
        (6 * GIB, 40 * GIB, 0.2),  # 6 x 1.25 = 7.5 of 40: five fit
        (8 * GIB, 40 * GIB, 0.25),  # 10 of 40: four fit exactly
        (8 * GIB + 1, 40 * GIB, 0.3333),  # a byte too much for four
        (16 * GIB, 40 * GIB, 0.5),
        (16 * GIB + 1, 40 * GIB, 1.0),
        (39 * GIB, 40 * GIB, 1.0),  # without room for the headroom
        (GIB // 2, 140 * GIB, 0.0625),  # never more than sixteen
    ],
)
def test_the_share_is_one_part_in_as_many_as_fit_with_a_quarter_to_spare(
    peak: int, total: int, share: float
) -> None:
    packing = Packing()
    packing.measured(peak, total)
    assert packing.share == share


def test_the_most_demanding_trial_sets_the_share_of_all() -> None:
    packing = Packing()
    shares = []
    for peak_gib in (4, 10, 2, 14):  # 5, 12.5, 2.5 and 17.5 of 40 with headroom
        packing.measured(peak_gib * GIB, 40 * GIB)
        shares.append(packing.share)
    assert shares == [0.125, 0.3333, 0.3333, 0.5]


def test_a_trial_that_did_not_fit_gets_twice_the_share_and_at_last_a_whole_gpu() -> None:
    packing = Packing()
    packing.measured(GIB, 140 * GIB)
    shares = [packing.share]
    while packing.ran_out(packing.share):
        shares.append(packing.share)
    assert shares == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0]


def test_twice_a_third_is_a_whole_gpu() -> None:
    packing = Packing()
    packing.measured(10 * GIB, 40 * GIB)
    assert packing.share == 0.3333
    assert packing.ran_out(0.3333)
    assert packing.share == 1.0


def test_trials_that_ran_out_together_double_the_share_once() -> None:
    packing = Packing()
    packing.measured(GIB, 140 * GIB)
    assert all(packing.ran_out(1 / 16) for _ in range(5))
    assert packing.share == 1 / 8


def test_a_trial_that_ran_out_is_remembered_when_smaller_ones_are_measured() -> None:
    packing = Packing()
    packing.measured(GIB, 140 * GIB)
    packing.ran_out(1 / 16)
    packing.measured(GIB, 140 * GIB)
    assert packing.share == 1 / 8


def test_what_a_whole_gpu_cannot_hold_is_not_tried_again() -> None:
    packing = Packing()
    assert not packing.ran_out(1.0)
    assert packing.remedy.startswith("the trial does not fit into a whole GPU; use GPUs with more")


@pytest.mark.parametrize(
    ("fixed", "remedy"),
    [(0.25, "resources.gpu_share, 0.25; raise it"), (2.0, "a whole GPU; use GPUs with more")],
)
def test_a_share_that_was_set_stays(fixed: float, remedy: str) -> None:
    packing = Packing(fixed)
    packing.measured(GIB, 40 * GIB)
    assert not packing.ran_out(fixed)
    assert packing.share == fixed
    assert remedy in packing.remedy


@given(st.lists(st.integers(1, 80 * GIB), min_size=1, max_size=5), st.integers(1, 80 * GIB))
def test_what_was_measured_fits_side_by_side(peaks: list[int], total: int) -> None:
    packing = Packing()
    for peak in peaks:
        packing.measured(peak, total)
    together = int(1 / packing.share)
    assert 1 <= together <= MOST_PER_GPU
    assert together * round(packing.share * 10_000) <= 10_000  # as Ray counts
    assert together == 1 or together * max(peaks) * 1.25 <= total * (1 + 1e-9)
