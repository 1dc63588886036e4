"""A console for what others wrote: controls of a terminal are shown in it, never sent to one."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from tracking.plain_text import visible


class PlainConsole(Console):
    """Sends no control but rich's own: names, logs and causes of failures come from elsewhere."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render as rich does, with each control in a text written as an escape."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=_shown(segment.text))


def _shown(text: str) -> str:
    return text if text.isprintable() else "\n".join(map(visible, text.split("\n")))
