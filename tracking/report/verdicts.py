"""What a table says, in words: computed from the rows, claiming no more than the test does."""

from dataclasses import dataclass

from tracking.comparison.comparison import (
    Comparison,
    Front,
    RateChoice,
    Row,
    Table,
    Verdict,
    Within,
)
from tracking.comparison.given_up import told_failed
from tracking.places import DENSE, RANDOM, UNIFORM_L1, scratched_arm
from tracking.report.headlines import Fold, could_show, folds_of, headline, no_verdict
from tracking.report.wording import (
    AXES,
    FEW,
    equals,
    listed,
    named,
    percent,
    points,
    share,
    target,
    time_spent,
)
from tracking.statistics.model import SIGNIFICANCE
from tracking.winners import front


@dataclass(frozen=True, kw_only=True, slots=True)
class Story:
    """A verdict: one sentence that says it, and the sentences that explain it."""

    title: str
    headline: str
    details: tuple[str, ...]
    folds: tuple[Fold, ...] = ()  #: Who the arms are that the sentences count.


def stories(comparison: Comparison) -> tuple[Story, ...]:
    """Tell which arms came to nothing, then every table and the fronts."""
    told = [*failed_story(comparison)]
    told += [story_of(table) for table in comparison.tables if not table.is_front]
    if comparison.fronts:
        told.append(front_story(comparison.fronts))
    return tuple(told)


def failed_story(comparison: Comparison) -> tuple[Story, ...]:
    """Tell of arms whose trials all failed, if there are any."""
    if not comparison.failed_arms:
        return ()
    headline = told_failed(comparison.failed_arms)
    return (Story(title="Failed", headline=headline, details=()),)


def method_note(comparison: Comparison) -> str:
    """Say how the learning rate was chosen, what was tested, and what intervals cover."""
    parts = (_rate_note(comparison.rates), _test_note(comparison), interval_note(comparison))
    return " ".join(part for part in parts if part)


def interval_note(comparison: Comparison) -> str:
    """Say what the intervals cover, and over how many test images; empty without an interval."""
    rows = [row.accuracy for table in comparison.tables for row in table.rows if row.accuracy]
    rows = [summary for summary in rows if summary.low is not None]
    if not rows:
        return ""
    seeds = listed([str(n) for n in sorted({summary.n for summary in rows})])
    known = sorted({summary.images for summary in rows if summary.images is not None})
    images = f"the sampling of {listed([f'{n:,}' for n in known])} test images"
    if not known:
        what = "alone, not the sampling of test images, whose number the records do not hold"
    elif all(summary.images is not None for summary in rows):
        what = f"and {images}"
    else:
        what = f"and, where the records hold their number, {images}"
    return f"Intervals are 95 % and cover {seeds} seeds a row {what}."


def _rate_note(rates: RateChoice | None) -> str:
    """Say which learning rate all share, what it was chosen from and what choosing it took."""
    if rates is None or rates.chosen is None:
        return ""
    tried = [
        f"{rate:g} ({'no result' if found is None else f'{percent(found)} %'})"
        for rate, found in rates.tried
    ]
    return (
        f"Learning rate {rates.chosen:g} for all, chosen from {listed(tried)} by the validation "
        f"accuracy of {rates.arm} at {rates.target}: {time_spent(rates.seconds)} of device time, "
        "in no row's total."
    )


def _test_note(comparison: Comparison) -> str:
    """Name the tests that were made and how their p-values were corrected; empty without one."""
    made = [row.test for table in comparison.tables for row in table.rows if row.test is not None]
    if not made:
        return ""
    counts = sorted({n for test in made for n in test.seeds})
    images = (
        "over seeds and test images"
        if all(test.images for test in made)
        else "over seeds and, where both rows kept their answers, test images"
        if any(test.images for test in made)
        else "over seeds alone: which test images were got right was not kept"
    )
    return (
        f"Differences are tested with Welch's t, two-sided, {images}; "
        f"{listed([str(n) for n in counts])} seeds a row. Variances are moderated: drawn toward "
        "the pooled one as far as the rows bear that out. p-values are corrected for the best row "
        "having been picked by looking (studentized range, step-down). From "
        f"{SIGNIFICANCE} up, rows are undecided; a tie is shown by two one-sided tests at "
        f"{SIGNIFICANCE} to be within {comparison.margin:g} points. Could show: the true "
        "difference that would be shown in 80 % of such sweeps; seeds needed: as many per row "
        "would show the difference seen as often."
    )


def story_of(table: Table) -> Story:
    """Tell one table."""
    if table.drop is not None:
        return _within_story(table)
    title = f"At {target(table.axis, table.reduction, table.target)}"
    lead = table.leader
    if lead is None or lead.accuracy is None:
        off = [row.name for row in table.arms if row.verdict is Verdict.OFF_TARGET]
        why = (
            f"{named(off)} missed the target and nothing else has a result."
            if off
            else "No arm has a fresh-seed result yet."
        )
        return Story(title=title, headline=why, details=(*_search(table), *_left_out(table)))
    details = _drops(table, lead)
    if table.harm is None:
        unsure = could_show(table)
        details = [
            *([unsure] if unsure else []),
            *_others(table, lead),
            *details,
            *_controls(table, lead),
        ]
    return Story(
        title=title,
        headline=headline(table, lead),
        details=(*details, *_search(table), *_left_out(table)),
        folds=folds_of(table, lead),
    )


def _within_story(table: Table) -> Story:
    """Tell how much of the cost each arm loses within a drop, the cheapest first."""
    found = [_within(row, row.within) for row in table.arms if row.within is not None]
    if table.harm is not None:
        found.insert(0, no_verdict(table.harm))
    if not found:
        found = ["No arm has a fresh-seed result yet."]
    held = [
        f"At this cost {_control_name(row.name)} loses {_lost(row.within)} points."
        for row in table.controls
        if row.within is not None
    ]
    return Story(
        title=f"Within {table.drop:g} points of the dense network",
        headline=found[0],
        details=(*found[1:], *held, *_search(table), *_left_out(table)),
    )


def _within(row: Row, found: Within) -> str:
    """Answer in one line; what the interval shows is said behind."""
    what = AXES.get(found.axis, found.axis)
    shown = {
        Verdict.WITHIN: "shown on fresh seeds",
        Verdict.UNDECIDED: f"fresh seeds leave open whether it is within {found.allowed:g}",
        Verdict.BEYOND: f"fresh seeds show more than the {found.allowed:g} allowed",
        Verdict.UNTESTED: "one seed, no interval",
    }[found.verdict]
    return (
        f"{row.name} loses {100 * found.reduction:.1f} % of the {what} at {_lost(found)} points: "
        f"{shown}."
    )


def _lost(found: Within) -> str:
    drop = f"{found.drop:.2f}".replace("-", "\N{MINUS SIGN}")
    return drop if found.half is None else f"{drop} ± {found.half:.2f}"


def _others(table: Table, lead: Row) -> list[str]:
    alike = [row for row in table.arms if row.same_as]
    sentences = [f"{row.name} is the same as {row.same_as}." for row in alike]
    if len(alike) > FEW:
        sentences = [f"{len(alike)} arms are the same runs as another one."]
    sentences += _worse(table, lead)
    if lead.accuracy is not None and lead.accuracy.n == 1:
        sentences.append(f"{lead.name} has one seed (n=1, no spread): its mean may be chance.")
    return sentences


def _worse(table: Table, lead: Row) -> list[str]:
    """Say how far below the leader the rows are that are told from it."""
    below = [
        (row.name, _mean(lead) - _mean(row), row.p)
        for row in table.arms
        if row.verdict is Verdict.WORSE and row.p is not None
    ]
    if len(below) > FEW:
        low, high = (f(gap for _, gap, _ in below) for f in (min, max))
        return [
            f"{len(below)} arms are {low:.2f} to {high:.2f} points below {lead.name} (largest "
            f"{equals(max(p for _, _, p in below))})."
        ]
    return [
        f"{name} is {gap:.2f} points below {lead.name} ({equals(p)})." for name, gap, p in below
    ]


def _drops(table: Table, lead: Row) -> list[str]:
    parts = []
    if lead.test_accuracy_drop is not None and table.dense is not None:
        accuracy = percent(table.dense.test_accuracy)
        parts.append(
            f"{_change(lead.test_accuracy_drop)} against the dense baseline ({accuracy} %)"
        )
    if lead.tuned_drop is not None:
        parts.append(
            f"{_change(lead.tuned_drop)} against the dense network trained for the same budget"
        )
    return [f"{lead.name} {listed(parts)}."] if parts else []


def _change(drop: float) -> str:
    return f"loses {drop:.2f} points" if drop >= 0 else f"gains {-drop:.2f} points"


def _controls(table: Table, lead: Row) -> list[str]:
    """Hold the leader against the controls, in one sentence."""
    if not table.controls:
        return ["There is no control to hold this against."]
    parts = []
    for row in table.controls:
        if row.accuracy is None or row.on_target is False or row.name == DENSE:
            continue
        ahead, name = _mean(lead) - _mean(row), _control_name(row.name)
        if row.same_as == lead.name:
            parts.append(f"is the same as {name}")
        elif row.p is None:
            parts.append(f"is {points(ahead)} points from {name} (too few seeds to test)")
        elif row.p >= SIGNIFICANCE:
            parts.append(f"cannot be told from {name} ({points(ahead)} points, {equals(row.p)})")
        elif ahead > 0:
            parts.append(f"beats {name} by {ahead:.2f} points ({equals(row.p)})")
        else:
            parts.append(f"is beaten by {name} by {-ahead:.2f} points ({equals(row.p)})")
    return [f"Against the controls, {lead.name} {listed(parts)}."] if parts else []


def _control_name(name: str) -> str:
    if (arm := scratched_arm(name)) is not None:
        return f"the shape of {arm} trained from scratch"
    known = {RANDOM: "random pruning", UNIFORM_L1: "uniform L1"}
    return known.get(name, name)


def _search(table: Table) -> list[str]:
    checked = [(row.name, row.uniform) for row in table.arms if row.uniform is not None]
    beaten = [f"{name} ({points(check.gain)} points)" for name, check in checked if check.beaten]
    unbeaten = [name for name, check in checked if not check.beaten]
    sentences = []
    if beaten:
        most = max(check.gain for _, check in checked)
        whom = f"{len(beaten)} arms (by up to {most:.2f} points)"
        sentences.append(
            "Search found better ratios than uniform ones for "
            f"{listed(beaten) if len(beaten) <= FEW else whom}, by validation accuracy with one "
            "seed, so an upper bound of the gain."
        )
    if unbeaten:
        sentences.append(f"Search did not beat uniform ratios for {named(unbeaten)}.")
    return [*sentences, *_proxies(table)]


def _proxies(table: Table) -> list[str]:
    """Say how well judging without training foresaw what training made of the finalists."""
    ranked = [
        (row.name, row.proxy, row.proxy.rank_correlation)
        for row in table.arms
        if row.proxy is not None and row.proxy.rank_correlation is not None
    ]
    if not ranked:
        return []
    shown = [f"{name} {rho:+.2f} (n={proxy.finalists})" for name, proxy, rho in ranked]
    low, high = (f(rho for _, _, rho in ranked) for f in (min, max))
    span = listed(shown) if len(shown) <= FEW else f"{low:+.2f} to {high:+.2f}, {len(shown)} arms"
    sentences = [
        "Proposals were judged without training; rank correlation with the trained accuracy over "
        f"the finalists, who were picked for being good: {span}."
    ]
    if misled := [name for name, _, rho in ranked if rho <= 0]:
        sentences.append(f"It was no guide among the finalists of {named(misled)}.")
    return sentences


def _left_out(table: Table) -> list[str]:
    off = [row.name for row in table.arms if row.verdict is Verdict.OFF_TARGET]
    missing = [row for row in table.arms if row.verdict is Verdict.MISSING]
    gone = [row.name for row in missing if row.runs.asked and not row.runs.waiting]
    coming = [row.name for row in missing if row.name not in gone]
    short = [row.name for row in table.rows if row.accuracy and row.runs.completed < row.runs.asked]
    sentences = []
    if table.drop is not None and coming:
        sentences.append(
            f"Of {listed(coming)} no network is known yet that loses so little, or there is none."
        )
        coming = []
    if off:
        sentences.append(
            f"{named(off)} missed the target by more than {share(table.tolerance)} of the dense "
            "cost and was left out of the ranking."
        )
    if gone:
        sentences.append(f"Every fresh-seed run of {named(gone)} ended without a usable result.")
    if coming:
        sentences.append(f"Fresh-seed results of {named(coming)} are still to come.")
    if short:
        sentences.append(f"Not every run of {named(short)} gave a result; see the runs table.")
    return sentences


def front_story(fronts: tuple[Front, ...]) -> Story:
    """Tell how the fronts of the arms lie to one another."""
    owned = [(point, each.arm) for each in fronts for point in each.points]
    joint = front(owned, lambda one: (one[0].val_accuracy, one[0].macs), with_equals=True)
    arms = [each.arm for each in fronts]
    shares = [
        f"{sum(owner == arm for _, owner in joint)} of {arm}"
        for arm in arms
        if any(owner == arm for _, owner in joint)
    ]
    if not joint:
        headline = "No proposal has a result yet."
    elif len(arms) == 1:
        headline = f"The front of {arms[0]} has {len(joint)} points."
    else:
        headline = f"The joint front has {len(joint)} points: {listed(shares)}."
    details = []
    if joint:
        low, high = (f(p.macs_reduction for p, _ in joint) for f in (min, max))
        details = [
            f"It runs from {share(low)} to {share(high)} fewer MACs.",
            "Points are single runs judged on the validation split; no test of significance.",
        ]
    return Story(title="Without a target", headline=headline, details=tuple(details))


def _mean(row: Row) -> float:
    return row.accuracy.mean if row.accuracy is not None else float("nan")
