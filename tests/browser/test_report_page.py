"""The report in a real browser: arms can be read, nothing overflows, nothing is complained of."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import MISSING, PROGRAM, Browser, chromium
from tests.browser.made_up import ARMS, made_up_sweep
from tests.tracking.hand_made import HandMadeSweep, specification
from tracking.report.report import to_html

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(PROGRAM is None, reason=MISSING),
]

#: Names of the arms that a reader of one chart sees, and those whose name leaves the chart.
READ = """[...document.querySelectorAll('[id^="forest-0"][role], svg[aria-labelledby^="forest-0"]')]
  .flatMap(chart => [...chart.querySelectorAll('.mark:not(.off) text')].map(text => {
    const [at, all] = [text.getBoundingClientRect(), chart.getBoundingClientRect()];
    const inside = at.width > 4 && at.height > 4 && at.left >= all.left - 1
      && at.right <= all.right + 1 && at.top >= all.top - 1 && at.bottom <= all.bottom + 1;
    return [text.textContent, inside, at.height];
  }))"""
#: Elements that reach beyond the window and cannot be scrolled to within something of their own.
BEYOND = """[...document.querySelectorAll('body *')].filter(element =>
    element.getBoundingClientRect().right > innerWidth + 1
    && !element.closest('.wide, figure.broad, svg')).map(each => each.outerHTML.slice(0, 90))"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of 29 arms at two targets."""
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(to_html(made_up_sweep(29, 2, 3)), encoding="utf-8")
    return file


def enter(browser: Browser, query: str, value: str) -> None:
    """Type into a field of the page."""
    browser.evaluate(
        f"(() => {{ const field = document.querySelector({json.dumps(query)});"
        f"field.value = {json.dumps(value)};"
        "field.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def names_in_order(browser: Browser) -> list[str]:
    """Return the names in the first chart from top to bottom, less numbers and headings."""
    found: list[list[Any]] = browser.evaluate(
        """[...document.querySelectorAll('svg[aria-labelledby^="forest-0"] .mark:not(.off)')]
          .filter(mark => mark.dataset.arm && mark.textContent === mark.dataset.arm)
          .map(mark => [mark.dataset.arm, mark.getBoundingClientRect().top])"""
    )
    return [name for name, _ in sorted(found, key=lambda pair: float(pair[1]))]


@pytest.mark.parametrize("width", [390, 1280, 3840])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_arm_can_be_read_and_nothing_overflows(
    browser: Browser, page: Path, width: int, dark: bool
) -> None:
    browser.open(page, width, dark=dark)
    read = browser.evaluate(READ)
    assert {text for text, _, _ in read} >= set(ARMS)
    assert [text for text, inside, _ in read if not inside] == []
    assert min(height for _, _, height in read) >= 9.0
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(BEYOND) == []
    assert browser.complaints == []
    assert [url for url in browser.asked if not url.startswith(("file:", "data:"))] == []


def test_every_figure_has_a_name(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    named = browser.evaluate(
        """[...document.querySelectorAll('svg[role=img]')].map(figure =>
          figure.getAttribute('aria-labelledby').split(' ')
            .map(id => document.getElementById(id)?.textContent || '').join(': '))"""
    )
    assert len(named) == browser.evaluate("document.querySelectorAll('figure').length") > 0
    assert all(len(text) > 20 for text in named)


def test_arms_are_found_hidden_and_ordered_on_the_whole_page(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    height = browser.evaluate("document.querySelector('svg[data-pitch]').clientHeight")
    by_value = names_in_order(browser)
    assert by_value[0] == "l1"
    enter(browser, "#find", "taylor, random, -gates")
    kept = names_in_order(browser)
    assert kept == [
        name for name in by_value if ("taylor" in name or "random" in name) and "gates" not in name
    ]
    assert browser.evaluate("document.querySelector('svg[data-pitch]').clientHeight") < height / 2
    assert browser.evaluate("document.getElementById('count').textContent").startswith("4 of ")
    enter(browser, "#find", "")
    enter(browser, "#order", "arm")
    arms = [name for name in names_in_order(browser) if name in ARMS and name != "asrfp"]
    assert arms == sorted(arms)


def test_a_table_sorts_by_what_its_cells_are_worth(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    column = """(() => { const table = document.querySelector('table');
      const head = table.tHead.rows[0].cells[1]; head.firstChild.click();
      return [head.getAttribute('aria-sort'), [...table.tBodies[0].rows].map(row =>
        row.cells[1].textContent.replace(/[^0-9.]/g, ''))]; })()"""
    for expected in ("descending", "ascending"):
        order, cells = browser.evaluate(column)
        values = [float(cell) for cell in cells]
        assert order == expected
        assert values == sorted(values, reverse=expected == "descending")


def test_pointing_at_a_mark_tells_its_numbers(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    told = browser.evaluate(
        """(() => { const mark = document.querySelector('.mark[data-arm="taylor"][data-tip]');
          const at = mark.getBoundingClientRect();
          for (const kind of ['pointerover', 'pointermove']) mark.firstElementChild.dispatchEvent(
            new PointerEvent(kind, {bubbles: true, clientX: at.x, clientY: at.y}));
          return [document.getElementById('tip').textContent,
            document.querySelectorAll('tr.hot[data-arm="taylor"]').length]; })()"""
    )
    assert told[0].startswith("taylor: 9")
    assert "95 %" in told[0]
    assert told[1] > 1


def test_hostile_names_run_nothing(browser: Browser, tmp_path: Path) -> None:
    name = '"><img src=x onerror=window.bad=1></svg><script>window.bad=1</script>'
    sweep = HandMadeSweep(tmp_path, specification(name, "l1"))
    for arm in (name, "l1"):
        sweep.seeds("confirm", arm, [90.0, 91.0, 92.0], kept={"<b onclick=bad()>": 3})
    file = tmp_path / "report.html"
    file.write_text(to_html(sweep.compare()), encoding="utf-8")
    browser.open(file, 390)
    assert browser.evaluate("typeof window.bad") == "undefined"
    assert browser.evaluate("document.querySelectorAll('img, b').length") == 0
    assert browser.complaints == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
