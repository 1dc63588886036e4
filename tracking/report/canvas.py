"""Figures as inline SVG by matplotlib, in the colours of the page they are on.

A figure is drawn for the width of a phone and grows with its column. Colours are drawn as
placeholders that become CSS variables, so that one figure serves a light and a dark page; text
stays text. Every mark carries the arm it belongs to, by which the page's script hides it, and a
title that browsers show on hover.
"""

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

INK, LINE, MUTED, CARD = "#010203", "#020304", "#030405", "#040506"
LEAD, LEVEL, BAND = "#0a0b00", "#0a0b01", "#0a0b02"
VARIABLES: Final = {
    INK: "--ink",
    LINE: "--line",
    MUTED: "--muted",
    CARD: "--card",
    LEAD: "--lead",
    LEVEL: "--level",
    BAND: "--band",
}
WIDTH: Final = 380.0  #: Of a figure, in points; the page shows it at 0.9 to 1.4 pixels each.
SIZE: Final = 10.5  #: Of its text, in points.
STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "prunesweep",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": SIZE,
    "figure.facecolor": "none",
    "figure.dpi": 72.0,
    "axes.facecolor": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """What something drawn stands for."""

    arm: str = ""  #: Empty: for no arm or control, as a heading does.
    kind: str = ""  #: As the page's switches name it: ``lead``, ``level``, ``worse`` ...
    row: int | None = None  #: Row it is in, from 0, in figures of rows.
    value: float | None = None  #: What rows can be sorted by.
    tip: str = ""  #: Shown on hover, read aloud.


@dataclass(kw_only=True)
class Canvas:
    """A figure being drawn."""

    name: str  #: Of the figure within the page; its ids begin with it.
    figure: Figure
    axes: Axes
    marks: list[Mark] = field(default_factory=list)

    def mark(self, mark: Mark, *artists: Artist) -> None:
        """Say what one or more artists stand for."""
        for artist in artists:
            artist.set_gid(f"mark-{len(self.marks)}-")
            self.marks.append(mark)

    def next_axes(self, left: float, bottom: float, width: float, height: float) -> None:
        """Add axes, in points from the figure's lower left, and draw on them from now on."""
        across, up = (72.0 * size for size in self.figure.get_size_inches())
        with mpl.rc_context(STYLE):
            self.axes = self.figure.add_axes(
                (left / across, bottom / up, width / across, height / up)
            )

    def line(
        self, mark: Mark | None, xs: Sequence[float], ys: Sequence[float], **look: Any
    ) -> None:
        """Draw a line or a marker; faster than `Axes.plot`, which sets limits anew each time."""
        drawn = Line2D(xs, ys, **{"linestyle": "none" if len(xs) == 1 else "-", **look})
        self.axes.add_artist(drawn)
        if mark is not None:
            self.mark(mark, drawn)


def canvas(
    name: str, height: float, margins: tuple[float, float, float, float], width: float = WIDTH
) -> Canvas:
    """Begin a figure.

    Args:
        name: Of the figure within the page.
        height: In points.
        margins: Left, right, top and bottom of the axes, in points.
        width: In points.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width / 72.0, height / 72.0))
        left, right, top, bottom = margins
        box = (left / width, bottom / height)
        size = ((width - left - right) / width, (height - top - bottom) / height)
        axes = figure.add_axes((*box, *size))
    return Canvas(name=name, figure=figure, axes=axes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """A figure of the page."""

    svg: Markup
    caption: str  #: Shown above it; its accessible name, too.
    note: str = ""
    wide: bool = False  #: It takes the whole width of the page.


def drawing(
    made: Canvas,
    caption: str,
    description: str,
    *,
    note: str = "",
    wide: bool = False,
    data: Mapping[str, object] | None = None,
) -> Drawing:
    """Render a figure, reproducibly.

    Args:
        made: The finished canvas.
        caption: Its accessible name.
        description: What it shows in a sentence, for who cannot see it.
        note: How to read it.
        wide: It takes the whole width of the page.
        data: Attributes ``data-...`` for the page's script, written as JSON unless text.
    """
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        made.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for pattern, replacement in (
        (r"<metadata>.*?</metadata>\s*", ""),
        (r"<style.*?</style>\s*", ""),  # it would reach the whole page
        (r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px"),
        (r"font-family: [^;\"]*;? ?", ""),
        (r"<!--.*?-->\s*", ""),
        (r"\s*\n\s*", " "),
        (r"> <", "><"),
        (r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{made.name}-"),
    ):
        text = re.sub(pattern, replacement, text, flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(rf'<g id="{made.name}-mark-(\d+)-">', lambda m: _opened(made, int(m[1])), text)
    head = _head(made, caption, description, data or {})
    text = re.sub(r"<svg .*?>", lambda _: head, text, count=1, flags=re.DOTALL)
    return Drawing(svg=Markup(text), caption=caption, note=note, wide=wide)


def _head(made: Canvas, caption: str, description: str, data: Mapping[str, object]) -> str:
    width, height = (72.0 * size for size in made.figure.get_size_inches())
    own = "".join(
        f' data-{key}="{escape(value if isinstance(value, str) else json.dumps(value))}"'
        for key, value in data.items()
    )
    return (
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {width:g} {height:g}" style="max-width: {1.5 * width:.0f}px" '
        f'role="img" aria-labelledby="{made.name}-title {made.name}-desc"{own}>'
        f'<title id="{made.name}-title">{escape(caption)}</title>'
        f'<desc id="{made.name}-desc">{escape(description)}</desc>'
    )


def _opened(made: Canvas, number: int) -> str:
    mark = made.marks[number]
    own = {"arm": mark.arm, "kind": mark.kind, "row": mark.row, "value": mark.value}
    words = "".join(f' data-{key}="{escape(v)}"' for key, v in own.items() if v not in {None, ""})
    return f'<g class="mark"{words}>' + (f"<title>{escape(mark.tip)}</title>" if mark.tip else "")


def text_width(text: str, size: float = SIZE) -> float:
    """Estimate the width of text in points, in whichever font the page takes."""
    return 0.58 * size * len(text)


def folded(name: str, most: int = 26) -> str:
    """Break a long name into lines, after a mark where there is one."""
    lines = []
    while len(name) > most:
        cut = max(name.rfind(mark, most // 2, most) for mark in "-_ .:") + 1 or most
        lines.append(name[:cut])
        name = name[cut:]
    return "\n".join([*lines, name])
