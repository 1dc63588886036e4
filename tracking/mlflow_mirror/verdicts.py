"""What a sweep's parent run says of its arms: numbers to sort and chart by, verdicts, a summary.

Names begin with the target and the measure and end with the arm, ``macs-50pct.accuracy_mean/l1``:
MLflow lists them side by side, and draws one chart for all arms.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tracking.comparison.comparison import Comparison, Row
from tracking.report.brief import brief_markdown

VERDICT = "prunesweep.verdict."  #: Begins the tags that hold an arm's verdict.
LONGEST_NOTE = 4900  #: Characters of a description, which is a tag.


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdicts:
    """What to add to the parent run."""

    numbers: Mapping[str, float]  #: Metrics by name.
    tags: Mapping[str, str]
    note: str  #: Markdown.


def verdicts_of(comparison: Comparison) -> Verdicts:
    """Gather mean, deviation, drop, cost and verdict of every arm and control at each target."""
    numbers: dict[str, float] = {}
    tags: dict[str, str] = {}
    for table in comparison.tables:
        target = member_name(table.target)
        for row in table.rows:
            found = {f"{target}.{measure}/{row.name}": value for measure, value in _numbers(row)}
            numbers = {**found, **numbers}  # of a target in several parts, the first has the name
            tags.setdefault(f"{VERDICT}{target}/{row.name}", str(row.verdict))
    return Verdicts(numbers=numbers, tags=tags, note=brief_markdown(comparison, LONGEST_NOTE))


def member_name(text: str) -> str:
    """Write a target, an arm or a role as part of a name MLflow takes: ``macs-50pct``."""
    return text.replace("%", "pct").replace("@", ".at.")


def _numbers(row: Row) -> Iterator[tuple[str, float]]:
    if row.accuracy is not None:
        yield "accuracy_mean", row.accuracy.mean
        if row.accuracy.std is not None:
            yield "accuracy_std", row.accuracy.std
    if row.test_accuracy_drop is not None:
        yield "drop", row.test_accuracy_drop
    if row.cost is not None:
        yield "macs", row.cost.macs
        yield "macs_reduction", row.cost.macs_reduction
        yield "params_reduction", row.cost.params_reduction
    if row.total_seconds is not None:
        yield "total_seconds", row.total_seconds
