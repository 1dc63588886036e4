import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.tracking.hand_made import HandMadeSweep, specification
from tracking.comparison.comparison import Comparison
from tracking.records import SweepState, TrialState
from tracking.report.report import to_html, to_json, to_markdown, to_text
from tracking.report.verdicts import Story, method_note, stories
from tracking.report.wording import amount, equals, listed, points, share, time_spent


class Page(HTMLParser):
    """Collects what a page asks for from elsewhere, and whether its tags are in order."""

    VOID = frozenset({"meta", "br", "use", "path", "rect", "image", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.scripts = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.scripts += tag == "script"
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            asks = name in {"src", "href", "xlink:href", "action"} and value
            if asks and not str(value).startswith(("#", "data:")):
                self.fetched.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def whole_sweep(folder: Path) -> Comparison:
    """Two targets, three arms, all controls, latency, one failure."""
    sweep = HandMadeSweep(folder, specification("l1", "fpgm", "bn", macs=(0.3, 0.5)), "whole")
    sweep.baseline(92.0)
    sweep.seeds("control", "dense", [92.4, 92.5, 92.6], target="", macs=1_000_000, kept={})
    for label, macs in (("macs-30%", 700_000), ("macs-50%", 500_000)):
        for arm, tests in (
            ("l1", [91.0, 91.5, 92.0]),
            ("fpgm", [91.2, 91.0, 91.9]),
            ("bn", [89.1, 89.5, 90.0]),
        ):
            for number, val in enumerate((90.0, 90.5)):
                sweep.add("search", arm, label, number, test=0.0, val=val, macs=macs)
            sweep.seeds("confirm", arm, tests, target=label, macs=macs)
        for name in ("random", "uniform_l1", "scratch:l1"):
            sweep.seeds("control", name, [88.0, 88.6, 89.0], target=label, macs=macs)
    sweep.add("search", "fpgm", "macs-50%", 2, state=TrialState.FAILED)
    timed = {"batch_size": 1, "median_ms": 2.0, "p90_ms": 2.5, "speed_up": 0.0}
    timed |= {"base_median_ms": 3.0, "base_p90_ms": 3.5}
    sweep.add("latency", "l1", "macs-50%", test=None, latency=[timed], shared_device=True)
    return sweep.compare()


def front_sweep(folder: Path) -> Comparison:
    """Two arms without a target, one point run again."""
    sweep = HandMadeSweep(folder, specification("l1", "fpgm", macs=(), trials=3), "fronts")
    sweep.baseline(92.0, val=92.0)
    for arm, gain in (("l1", 0.5), ("fpgm", 0.0)):
        for number, (macs, val) in enumerate([(800_000, 91.0), (500_000, 90.0), (300_000, 85.0)]):
            sweep.add("search", arm, "front", number, macs=macs, val=val + gain, test=0.0)
    sweep.seeds("confirm", "l1", [90.0, 90.5, 91.0], target="front-1")
    sweep.seeds("control", "random", [85.0, 85.5, 86.0], target="macs-50%")
    return sweep.compare()


def empty_sweep(folder: Path) -> Comparison:
    """Nothing has happened yet."""
    return HandMadeSweep(folder, specification("l1", "fpgm"), "empty").compare(SweepState.RUNNING)


@pytest.fixture(scope="module", params=[whole_sweep, front_sweep, empty_sweep])
def comparison(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Comparison:
    found: Comparison = request.param(tmp_path_factory.mktemp("ledger"))
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return whole_sweep(tmp_path_factory.mktemp("ledger"))


@pytest.fixture(scope="module")
def page(whole: Comparison) -> str:
    return to_html(whole)


class TestEveryForm:
    def test_the_page_is_whole_and_asks_for_nothing_from_elsewhere(
        self, comparison: Comparison
    ) -> None:
        text = to_html(comparison)
        page = Page(text)
        assert page.open == []
        assert (page.fetched, page.scripts) == ([], 1)
        assert len(page.ids) == len(set(page.ids))
        assert not re.search(r"@import|url\((?!#)", text)
        assert len(text.encode()) < 1_000_000

    def test_the_same_records_give_the_same_bytes(self, comparison: Comparison) -> None:
        for write in (to_html, to_json, to_markdown, to_text):
            assert write(comparison) == write(comparison)

    def test_json_reads_back_and_holds_the_verdicts(self, comparison: Comparison) -> None:
        content = json.loads(to_json(comparison))
        assert content["sweep"] == comparison.sweep
        told = [verdict["headline"] for verdict in content["verdicts"]]
        assert told == [story.headline for story in stories(comparison)]

    def test_the_text_keeps_to_its_width(self, comparison: Comparison) -> None:
        assert max(len(line) for line in to_text(comparison, width=100).splitlines()) <= 100

    def test_markdown_rows_have_as_many_cells_as_their_header(self, comparison: Comparison) -> None:
        tables = re.findall(r"(?:^\|.*\n)+", to_markdown(comparison), flags=re.MULTILINE)
        for table in tables:
            cells = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
            assert len(cells) == 1


class TestPage:
    def test_it_shows_figures_widths_failures_and_where_numbers_come_from(self, page: str) -> None:
        figures = re.findall(r'role="img" aria-labelledby="([a-z]+)-', page)
        assert sorted(figures) == sorted(
            ["plane", *(name for name in ("forest", "gains", "plane", "widths") for _ in "12")]
        )
        for words in (
            "50 % fewer MACs",
            "stage1.0.conv1",
            "Runs without a usable result",
            "spec-hash",
            "torch 2.15.0",
            "commit 0123abc",
            "shared device",
        ):
            assert words in page

    def test_figures_take_their_colours_from_the_page_and_keep_text_as_text(
        self, page: str
    ) -> None:
        figures = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
        assert re.findall(r"#[0-9a-f]{6}\b", figures) == []
        assert "var(--lead)" in figures
        assert ">uniform_l1</text>" in figures

    def test_every_row_and_mark_says_whose_it_is(self, page: str) -> None:
        for arm in ("l1", "fpgm", "bn", "random"):
            assert f'<g class="mark" data-arm="{arm}"' in page
            assert f'data-arm="{arm}" data-kind=' in page

    def test_names_cannot_bring_markup(self, tmp_path: Path) -> None:
        name = "<script>alert(1)</script>|*x*$y$"
        sweep = HandMadeSweep(tmp_path, specification(name))
        sweep.seeds("confirm", name, [90.0, 91.0], kept={"<b>": 3})
        comparison = sweep.compare()
        text = to_html(comparison)
        assert text.count("<script") == 1
        assert "alert(1)" not in re.sub(r"&lt;script&gt;alert\(1\)", "", text)
        assert "<b>" not in text
        assert "&lt;b&gt;" in text
        assert "&lt;script&gt;" in text
        assert r"\<script>alert(1)\</script>\|\*x\*" in to_markdown(comparison)

    def test_within_a_drop_rows_say_how_much_of_the_cost_went(self, tmp_path: Path) -> None:
        spec = specification("l1", "fpgm")
        spec["targets"] = {"accuracy_drop": [1.0], "axis": "macs"}
        sweep = HandMadeSweep(tmp_path, spec)
        sweep.seeds("control", "dense", [92.4, 92.5, 92.6], target="", macs=1_000_000, kept={})
        for arm, macs in (("l1", 600_000), ("fpgm", 500_000)):
            own = {"target": {"axis": "macs", "reduction": 1 - macs / 1e6}}
            sweep.seeds("confirm", arm, [91.8, 91.9, 92.0], target="drop-1", macs=macs, spec=own)
        page = to_html(sweep.compare())
        assert "within the drop</span>" in page
        assert "highest mean</span>" not in page
        chart = page.partition('aria-labelledby="forest-0')[2]
        assert chart.index("\N{MINUS SIGN}50 %</text>") < chart.index("\N{MINUS SIGN}40 %</text>")
        assert chart.index(">fpgm</text>") < chart.index(">l1</text>")

    def test_fronts_are_drawn_and_their_points_tabled(self, tmp_path: Path) -> None:
        text = to_html(front_sweep(tmp_path))
        assert "Validation accuracy, %, one seed" in text
        assert "l1 #1" in text
        assert "random macs-50%" in text


def tell(tmp_path: Path, *rows: tuple[str, str, Sequence[float | None]], **spec: object) -> Story:
    """Tell the one table of a sweep of these runs."""
    arms = [name for role, name, _ in rows if role == "confirm"]
    sweep = HandMadeSweep(tmp_path, specification(*arms, controls={}))
    sweep.baseline(92.0)
    for role, name, tests in rows:
        assert role in {"confirm", "control"}
        sweep.seeds("confirm" if role == "confirm" else "control", name, tests)
    (story,) = stories(sweep.compare())
    return story


def shown(story: Story) -> list[tuple[str, tuple[str, ...]]]:
    return [(fold.title, fold.names) for fold in story.folds]


class TestVerdict:
    def test_what_is_not_shown_is_undecided_and_says_what_would_show_it(
        self, tmp_path: Path
    ) -> None:
        story = tell(
            tmp_path,
            ("confirm", "l1", [91.0, 92.0, 93.0]),
            ("confirm", "fpgm", [89.0, 90.0, 91.0]),
        )
        assert story.title == "At 50 % fewer MACs"
        assert re.fullmatch(
            r"l1 has the highest mean \(92\.00 % test accuracy\), but it is undecided whether it "
            r"is better than fpgm: 2\.00 points apart \(p = 0\.\d+\); these seeds could have shown "
            r"\d\.\d\d points, and \d+ seeds each would show this\.",
            story.headline,
        )

    def test_a_winner_is_named_with_what_it_costs(self, tmp_path: Path) -> None:
        story = tell(
            tmp_path,
            ("confirm", "l1", [91.4, 91.5, 91.6]),
            ("confirm", "fpgm", [90.6, 90.5, 90.4]),
            ("control", "random", [89.6, 89.5, 89.4]),
            ("control", "dense", [92.0, 92.5, 93.0]),
        )
        assert story.headline == "l1 is best, with 91.50 % test accuracy: fpgm is worse."
        assert story.details[0].startswith("fpgm is 1.00 points below l1 (p ")
        assert story.details[1] == (
            "l1 loses 0.50 points against the dense baseline (92.00 %) and loses 1.00 points "
            "against the dense network trained for the same budget."
        )
        assert story.details[2].startswith(
            "Against the controls, l1 beats random pruning by 2.00 points (p "
        )

    def test_what_is_not_told_from_random_pruning_is_not_called_best(self, tmp_path: Path) -> None:
        story = tell(
            tmp_path,
            ("confirm", "l1", [91.4, 91.5, 91.6]),
            ("confirm", "fpgm", [88.6, 88.5, 88.4]),
            ("control", "random", [91.3, 91.6, 91.4]),
        )
        assert re.fullmatch(
            r"l1 has the highest mean \(91\.50 % test accuracy\), and fpgm is worse, but it cannot "
            r"be told from random pruning \(\+0\.07 points, p = 0\.\d+\)\. "
            r"Not shown to beat random pruning: fpgm\.",
            story.headline,
        )
        assert ("highest mean, not above random pruning", ("l1",)) in shown(story)

    def test_of_many_arms_the_headline_counts_and_the_folds_name(self, tmp_path: Path) -> None:
        good, bad = ([f"{kind}{n}" for n in range(10)] for kind in ("good", "bad"))
        story = tell(
            tmp_path,
            ("confirm", "lead", [91.4, 91.5, 91.6]),
            *(("confirm", name, [88.5, 88.6, 88.7]) for name in good),
            *(("confirm", name, [80.0, 80.1, 80.2]) for name in bad),
            ("control", "random", [80.1, 80.2, 79.9]),
        )
        assert story.headline == (
            "lead is best of 21 arms, with 91.50 % test accuracy: 20 arms are worse. "
            "Not shown to beat random pruning: 10 arms."
        )
        folds = dict(shown(story))
        assert sorted(folds["not shown to beat random pruning"]) == sorted(bad)
        assert sorted(folds["worse than lead"]) == sorted([*good, *bad])

    def test_what_intervals_cover_is_told_in_every_form(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1", "fpgm"))
        for arm in ("l1", "fpgm"):
            sweep.seeds("confirm", arm, [91.0, 92.0, 93.0], test_images=10_000)
        comparison = sweep.compare()
        told = "cover 3 seeds a row and the sampling of 10,000 test images"
        for write in (to_html, to_markdown, to_json):
            assert told in write(comparison)
        (table,) = json.loads(to_json(comparison))["tables"]
        assert {row["accuracy"]["images"] for row in table["rows"]} == {10_000}

    def test_a_recipe_that_harms_comes_first_and_nothing_is_concluded(self, tmp_path: Path) -> None:
        story = tell(
            tmp_path,
            ("confirm", "l1", [86.0, 86.1, 85.9]),
            ("control", "random", [80.0, 80.1, 79.9]),
            ("control", "dense", [88.0, 88.1, 87.9]),
        )
        assert story.headline.startswith(
            "No verdict: trained by this recipe, the dense network itself loses 4.00 points ("
        )
        assert not any("beats" in detail for detail in story.details)

    def test_one_seed_is_not_dressed_up(self, tmp_path: Path) -> None:
        story = tell(tmp_path, ("confirm", "l1", [91.0]), ("confirm", "fpgm", [80.0]))
        assert story.headline == (
            "l1 has the highest mean (91.00 % test accuracy), but there are too few shared seeds "
            "to tell it from fpgm."
        )
        assert "l1 has one seed (n=1, no spread): its mean may be chance." in story.details
        assert "There is no control to hold this against." in story.details

    def test_what_failed_and_what_is_to_come_are_kept_apart(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1", "fpgm", "bn", "late", controls={}))
        sweep.seeds("confirm", "l1", [91.0, 92.0, None])
        sweep.seeds("confirm", "bn", [99.0, 99.0], macs=900_000)
        sweep.add("confirm", "fpgm", index=1, state=TrialState.FAILED)
        failed, story = stories(sweep.compare())
        assert failed.headline.startswith("Every trial of fpgm failed: ")
        assert story.details[-4:] == (
            "bn missed the target by more than 1.0 % of the dense cost and was left out of the "
            "ranking.",
            "Every fresh-seed run of fpgm ended without a usable result.",
            "Fresh-seed results of late are still to come.",
            "Not every run of l1 gave a result; see the runs table.",
        )

    def test_arms_of_which_every_trial_failed_come_first(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1", "fpgm", "bn", "taylor", controls={}))
        sweep.seeds("confirm", "l1", [91.0, 91.2])
        for arm in ("fpgm", "bn"):
            sweep.add("search", arm, state=TrialState.FAILED, cause="RuntimeError: shapes")
        sweep.add("search", "taylor", test=0.0)  # its search went well, and its winner failed
        sweep.add("confirm", "taylor", index=1, state=TrialState.FAILED, cause="KeyError: 'x'")
        comparison = sweep.compare()
        assert set(comparison.failed_arms) == {"fpgm", "bn", "taylor"}
        first, *_ = stories(comparison)
        assert first.headline == (
            "Every trial of bn, fpgm failed: RuntimeError: shapes. "
            "Every trial of taylor failed: KeyError: 'x'."
        )
        for text in (to_text(comparison), to_markdown(comparison), to_html(comparison)):
            assert "Every trial of bn, fpgm failed" in text

    def test_an_arm_that_may_still_come_is_not_failed(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1", "bn", controls={}))
        sweep.add("search", "l1", state=TrialState.FAILED)
        sweep.add("search", "l1", index=1, state=TrialState.PENDING)
        sweep.add("search", "bn", state=TrialState.FAILED)
        sweep.add("search", "bn", index=1, test=0.0)
        assert sweep.compare(SweepState.RUNNING).failed_arms == {}

    def test_a_search_that_cannot_beat_uniform_ratios_says_so(self, tmp_path: Path) -> None:
        sweep = HandMadeSweep(tmp_path, specification("l1", "fpgm", controls={}))
        for arm, second in (("l1", 90.6), ("fpgm", 89.0)):
            for number, val in enumerate((90.0, second)):
                sweep.add("search", arm, index=number, test=0.0, val=val)
        (story,) = stories(sweep.compare())
        assert story.headline == "No arm has a fresh-seed result yet."
        assert story.details[:2] == (
            "Search found better ratios than uniform ones for l1 (+0.60 points), by validation "
            "accuracy with one seed, so an upper bound of the gain.",
            "Search did not beat uniform ratios for fpgm.",
        )

    def test_that_of_a_front_comes_before_its_tables(self, tmp_path: Path) -> None:
        comparison = front_sweep(tmp_path)
        assert to_markdown(comparison).splitlines()[2] == "## Without a target"
        text = to_text(comparison)
        assert text.index("Without a target: The joint front") < text.index("l1 #1")

    def test_the_joint_front_is_shared_out(self, tmp_path: Path) -> None:
        story = stories(front_sweep(tmp_path))[-1]
        assert story.headline == "The joint front has 3 points: 3 of l1."
        assert story.details[0] == "It runs from 20.0 % to 70.0 % fewer MACs."

    def test_the_test_and_its_correction_are_named(self, whole: Comparison, tmp_path: Path) -> None:
        assert method_note(whole).startswith(
            "Differences are tested with Welch's t, two-sided, over seeds alone"
        )
        assert method_note(empty_sweep(tmp_path)) == ""


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (amount(41_300_000), "41.3 M"),
        (amount(999), "999"),
        (amount(999_999), "1 M"),
        (amount(2_500_000_000), "2.5 G"),
        (amount(None), "\N{EN DASH}"),
        (share(0.498), "49.8 %"),
        (points(-0.001), "0.00"),
        (points(-0.6), "\N{MINUS SIGN}0.60"),
        (points(0.6), "+0.60"),
        (time_spent(4.26), "4.3 s"),
        (time_spent(45), "45 s"),
        (time_spent(720), "12 min"),
        (time_spent(12_240), "3.4 h"),
        (equals(0.0004), "p < 0.001"),
        (equals(0.0123), "p = 0.012"),
        (equals(0.414), "p = 0.41"),
        (listed([]), ""),
        (listed(["a"]), "a"),
        (listed(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_numbers_are_written_for_people(written: str, expected: str) -> None:
    assert written == expected
