"""The stopping rules against their definitions, worked by hand, and what holds of any reports."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import StoppingRule, create_rule
from search_spaces.stopping import RuleName

EPOCHS = 10


def rule_of(name: RuleName, epochs: int = EPOCHS, **changes: int) -> StoppingRule:
    return create_rule(
        name, epochs, **{"min_epochs": 1, "reduction_factor": 3, "min_trials": 1, **changes}
    )


def asha(epochs: int = EPOCHS, min_epochs: int = 1, reduction_factor: int = 3) -> StoppingRule:
    return rule_of("asha", epochs, min_epochs=min_epochs, reduction_factor=reduction_factor)


def median(min_epochs: int = 1, min_trials: int = 1) -> StoppingRule:
    return rule_of("median", min_epochs=min_epochs, min_trials=min_trials)


def told(rule: StoppingRule, epoch: int, *values: float, first: int = 0) -> list[bool]:
    """Return what trials that report these values at an epoch, one after another, are told."""
    return [rule.report(trial, epoch, value) for trial, value in enumerate(values, start=first)]


class TestAsha:
    def test_one_in_so_many_goes_on(self) -> None:
        # As n grows the best max(1, n // 3) go on: 1 of 1, 1 of 2, 1 of 3, 1 of 4, 1 of 5, 2 of 6.
        values = (0.5, 0.4, 0.6, 0.55, 0.3, 0.58)
        assert told(asha(), 1, *values) == [False, True, False, True, True, False]

    def test_the_best_third_of_many_goes_on(self) -> None:
        rule = asha()
        told(rule, 1, *(n / 10 for n in range(8)))
        # With 0.55 there are nine: 0.7, 0.6 and 0.55 go on. With 0.5 ten, and three still.
        assert told(rule, 1, 0.55, 0.5, first=8) == [False, True]

    @pytest.mark.parametrize(("good_until", "stopped_at"), [(1, 3), (2, 3), (3, 9), (8, 9)])
    def test_rungs_are_powers_of_the_factor_apart(self, good_until: int, stopped_at: int) -> None:
        rule = asha(epochs=12, min_epochs=1, reduction_factor=3)  # at 1, 3, 9
        for epoch in range(1, 12):
            assert not rule.report(0, epoch, 0.9)
        heard = [rule.report(1, e, 0.9 if e <= good_until else 0.1) for e in range(1, 12)]
        assert heard.index(True) + 1 == stopped_at

    def test_between_rungs_nothing_is_decided(self) -> None:
        rule = asha(min_epochs=2, reduction_factor=3)  # at 2 and 6
        told(rule, 2, 0.5, 0.6)
        assert told(rule, 3, 0.4, 0.9) == [False, False]
        assert told(rule, 5, 0.1, 0.9) == [False, False]
        assert told(rule, 6, 0.2, 0.1) == [False, True]

    def test_no_trial_is_stopped_before_the_first_rung(self) -> None:
        rule = asha(min_epochs=4)
        assert told(rule, 3, 0.9, 0.1) == [False, False]
        assert told(rule, 4, 0.9, 0.1) == [False, True]

    def test_what_equals_the_last_that_goes_on_goes_on_too(self) -> None:
        assert told(asha(), 1, 0.5, 0.5, 0.5, 0.4) == [False, False, False, True]

    def test_a_first_report_beyond_a_rung_stands_for_it(self) -> None:
        rule = asha()
        rule.report(0, 1, 0.2)
        assert rule.report(1, 2, 0.1)  # compared at rung 1

    def test_passing_two_rungs_at_once_counts_at_the_higher(self) -> None:
        rule = asha()
        assert not rule.report(0, 4, 0.9)  # at rung 3
        assert told(rule, 1, 0.1, first=1) == [False]  # the first at rung 1
        assert rule.report(2, 3, 0.5)

    def test_diverged_trials_are_the_worst(self) -> None:
        rule = asha()
        assert told(rule, 1, 0.1, math.nan, math.inf, 0.2) == [False, True, True, False]

    def test_a_first_rung_beyond_the_budget_stops_nothing(self) -> None:
        rule = asha(min_epochs=EPOCHS)
        assert not any(told(rule, EPOCHS - 1, 0.9, 0.1))
        assert not any(told(rule, EPOCHS, 0.9, 0.1))


class TestMedian:
    def completed(self, rule: StoppingRule, *curves: tuple[float, ...]) -> StoppingRule:
        for trial, curve in enumerate(curves):
            for epoch, value in enumerate(curve, start=1):
                rule.report(trial, epoch, value)
            rule.ended(trial)
        return rule

    def test_the_best_so_far_is_compared_with_the_median_of_running_averages(self) -> None:
        # Up to epoch 2 they average 0.3, 0.5 and 0.7; up to epoch 3 0.4, 0.6 and 0.8.
        curves = ((0.2, 0.4, 0.6), (0.4, 0.6, 0.8), (0.6, 0.8, 1.0))
        rule = self.completed(median(min_epochs=2), *curves)
        assert not rule.report(10, 2, 0.5)  # equal is not worse
        assert rule.report(11, 2, 0.49)
        assert not rule.report(12, 2, 0.65)
        assert not rule.report(12, 3, 0.1)  # its best so far still is
        assert rule.report(10, 3, 0.55)

    def test_of_an_even_number_the_middle_two_are_averaged(self) -> None:
        rule = self.completed(median(), (0.2,), (0.6,))
        assert told(rule, 1, 0.4, 0.39, first=10) == [False, True]

    def test_trials_under_way_and_stopped_do_not_count(self) -> None:
        rule = self.completed(median(), (0.5,))
        assert rule.report(10, 1, 0.4)
        assert not rule.report(11, 1, 0.9)
        rule.ended(10)  # came to its end before it heard
        assert not rule.report(12, 1, 0.5)
        assert rule.report(13, 1, 0.49)

    def test_nothing_is_decided_by_too_few_or_too_early(self) -> None:
        rule = self.completed(median(min_epochs=2, min_trials=2), (0.8, 0.9))
        assert not rule.report(10, 2, 0.1)
        rule.report(1, 1, 0.8)
        rule.ended(1)
        assert told(rule, 1, 0.1, first=11) == [False]
        assert told(rule, 2, 0.1, first=11) == [True]

    def test_ending_twice_counts_once(self) -> None:
        rule = self.completed(median(min_trials=2), (0.8,))
        rule.ended(0)
        assert not rule.report(10, 1, 0.1)

    def test_a_trial_that_reports_late_has_no_average_before(self) -> None:
        rule = median()
        rule.report(0, 5, 0.9)
        rule.ended(0)
        assert not rule.report(1, 4, 0.1)
        assert rule.report(1, 5, 0.1)


@pytest.mark.parametrize("rule", ["asha", "median"])
class TestEveryRule:
    def test_the_last_epoch_stops_nobody(self, rule: RuleName) -> None:
        made = rule_of(rule)
        for trial in range(5):
            assert not made.report(trial, EPOCHS, 0.9 - trial / 10)
            made.ended(trial)

    def new(self, rule: RuleName) -> StoppingRule:
        made = rule_of(rule)
        made.report(0, 1, 0.9)
        made.report(0, 3, 0.9)
        made.ended(0)
        return made

    def test_a_trial_that_is_to_stop_hears_it_again(self, rule: RuleName) -> None:
        made = self.new(rule)
        assert made.report(1, 1, 0.1)
        assert made.report(1, 1, 0.1)
        assert made.report(1, 2, 0.95)
        assert not made.report(1, EPOCHS, 0.95)  # too late to be of use

    def test_what_it_still_reports_counts_for_nothing(self, rule: RuleName) -> None:
        made = self.new(rule)
        made.report(1, 1, 0.1)
        made.report(1, 3, 1.0)
        assert not made.report(2, 3, 0.9)

    def test_an_epoch_reported_again_counts_once(self, rule: RuleName) -> None:
        made, again = self.new(rule), self.new(rule)
        for _ in range(5):
            made.report(1, 1, 0.95)
        again.report(1, 1, 0.95)
        late = [0.94, 0.93, 0.96, 0.9]
        assert told(made, 1, *late, first=2) == told(again, 1, *late, first=2)


Reports = list[tuple[int, int, float]]
orders = st.lists(
    st.tuples(st.integers(0, 6), st.integers(1, EPOCHS), st.floats(0, 1, width=16)), max_size=60
)


def play(rule: StoppingRule, reports: Reports) -> list[bool]:
    """Report in this order; a trial that reports its last epoch has completed."""
    decisions = []
    for trial, epoch, value in reports:
        decisions.append(rule.report(trial, epoch, value))
        if epoch == EPOCHS:
            rule.ended(trial)
    return decisions


def stopped(reports: Reports, decisions: list[bool]) -> set[int]:
    return {trial for (trial, _, _), stops in zip(reports, decisions, strict=True) if stops}


class TestAnyReports:
    @given(orders)
    def test_replaying_them_gives_the_same_decisions(self, reports: Reports) -> None:
        assert play(asha(), reports) == play(asha(), reports)
        assert play(median(), reports) == play(median(), reports)

    @given(orders)
    def test_a_replay_without_what_came_twice_decides_the_same(self, reports: Reports) -> None:
        once = [r for at, r in enumerate(reports) if r[:2] not in [x[:2] for x in reports[:at]]]
        for make in (asha, median):
            stopped = {
                t for (t, _, _), stops in zip(once, play(make(), once), strict=True) if stops
            }
            all_of_them = play(make(), reports)
            again = {t for (t, _, _), stops in zip(reports, all_of_them, strict=True) if stops}
            # A repetition decides nothing new; it only lets a stopped trial hear it once more.
            assert stopped == again

    @given(orders)
    def test_a_trial_better_than_all_others_is_never_stopped(self, reports: Reports) -> None:
        best = [(6, epoch, 2.0) if trial == 6 else (trial, epoch, v) for trial, epoch, v in reports]
        for rule in (asha(), median()):
            assert 6 not in stopped(best, play(rule, best))

    @given(orders)
    def test_nobody_is_stopped_before_the_first_rung(self, reports: Reports) -> None:
        for rule in (asha(min_epochs=4), median(min_epochs=4)):
            early = [report for report in reports if report[1] < 4]
            assert not any(play(rule, early))
