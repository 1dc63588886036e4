"""Numbers as people read them; the same in the terminal, in Markdown and in the report."""

from collections.abc import Sequence

from tracking.durations import duration
from tracking.places import LATENCY, is_drop
from tracking.plain_text import visible
from tracking.statistics.summary import Summary

NOTHING = "\N{EN DASH}"  #: Where there is no number.
FEW = 4  #: Names that a sentence lists; of more it gives the number.
AXES = {"macs": "MACs", "params": "parameters", LATENCY: "latency"}


def percent(value: float | None, digits: int = 2) -> str:
    """Write a percentage, as accuracies are stored: ``91.40``."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def share(value: float | None) -> str:
    """Write a share in [0, 1] as a percentage: ``49.8 %``."""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def points(value: float | None) -> str:
    """Write a difference of percentages with its sign: ``+0.60``."""
    if value is None:
        return NOTHING
    text = f"{value:+.2f}"
    return "0.00" if text in {"+0.00", "-0.00"} else text.replace("-", "\N{MINUS SIGN}")


def amount(value: float | None) -> str:
    """Write a count with a metric prefix and three digits: ``41.3 M``."""
    if value is None:
        return NOTHING
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:  # what would be rounded to 1000 of the smaller prefix
            return f"{value / size:.3g} {prefix}"
    return f"{value:.0f}"


def time_spent(seconds: float | None) -> str:
    """Write a time, or that there is none."""
    return NOTHING if seconds is None else duration(seconds)


def milliseconds(value: float) -> str:
    """Write a latency with three significant digits: ``1.24 ms``."""
    return f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"


def p_value(p: float | None) -> str:
    """Write a p-value: two digits, and no more precision than it has."""
    if p is None:
        return NOTHING
    if p < 0.001:
        return "< 0.001"
    text = f"{p:.2f}" if p >= 0.1 else f"{p:.2g}"
    return "< 0.05" if p < 0.05 <= float(text) else text  # never rounded onto the limit


def equals(p: float) -> str:
    """Write ``p = 0.41`` or ``p < 0.001`` for a sentence."""
    text = p_value(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def spread(summary: Summary | None) -> str:
    """Write mean and standard deviation: ``91.40 ± 0.21``; without one, the mean alone."""
    if summary is None:
        return NOTHING
    return percent(summary.mean) + (f" ± {summary.std:.2f}" if summary.std is not None else "")


def interval(summary: Summary | None) -> str:
    """Write the 95 % confidence interval, or why there is none."""
    if summary is None:
        return NOTHING
    if summary.low is None:
        return "n=1, no spread"
    return f"{percent(summary.low)} to {percent(summary.high)}"


def covered(summary: Summary) -> str:
    """Say what the interval covers: ``3 seeds and the sampling of 10,000 test images``."""
    seeds = f"{summary.n} seed" + ("s" if summary.n > 1 else "")
    if summary.images is None:
        return f"{seeds}, not the sampling of test images"
    return f"{seeds} and the sampling of {summary.images:,} test images"


def listed(names: Sequence[str]) -> str:
    """Join names for a sentence: ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([*([", ".join(names[:-1])] if names[:-1] else []), *names[-1:]])


def named(names: Sequence[str], what: str = "arms") -> str:
    """Name a few; count more: ``a, b and c``, ``17 arms``."""
    return listed(names) if len(names) <= FEW else f"{len(names)} {what}"


def target(axis: str | None, reduction: float | None, label: str) -> str:
    """Name a target in words: ``50 % fewer MACs``; its label where it has no axis."""
    if is_drop(label):
        return f"cheapest within {label.partition('-')[2]} points"
    if axis is None or reduction is None:
        return label
    less = "less" if axis == LATENCY else "fewer"
    return f"{100 * reduction:g} % {less} {AXES.get(axis, axis)}"


def markdown_safe(text: str) -> str:
    """Keep Markdown from reading names as markup, and terminals from obeying them."""
    text = visible(text.replace("\n", " "))
    for mark in ("\\", "|", "*", "_", "`", "<", "#"):
        text = text.replace(mark, f"\\{mark}")
    return text
