from pathlib import Path

from tests.tracking.hand_made import HandMadeSweep, specification
from tracking.comparison.compare import compare
from tracking.comparison.comparison import Comparison
from tracking.report.brief import brief_html, brief_markdown


def comparison(folder: Path, *arms: str) -> Comparison:
    made = HandMadeSweep(folder, specification(*arms, macs=[0.3, 0.5]))
    made.baseline()
    for target, macs in (("macs-30%", 700_000), ("macs-50%", 500_000)):
        for place, arm in enumerate(arms):
            for seed in (1, 2, 3):
                made.add("confirm", arm, target, seed, test=90.0 - place + 0.1 * seed, macs=macs)
    found = compare(made.ledger, made.ledger.sweep(made.name))
    made.ledger.close()
    return found


def test_markdown_has_a_sentence_and_a_table_per_target(tmp_path: Path) -> None:
    text = brief_markdown(comparison(tmp_path, "l1", "geometric_median"), 5000)
    assert text.count("| Arm | Test accuracy") == 2
    assert "| l1 | 90.20 ± 0.10 |" in text
    assert "geometric\\_median" in text
    assert "geometric_median" not in text
    assert text.index("**30 % fewer MACs**") < text.index("| l1 |")


def test_markdown_that_is_too_long_ends_at_a_whole_part_and_says_so(tmp_path: Path) -> None:
    found = comparison(tmp_path, *(f"arm{number}" for number in range(30)))
    assert len(brief_markdown(found, 100_000)) > 3000
    short = brief_markdown(found, 3000)
    assert len(short) <= 3000
    assert short.endswith("*The rest is in the report.*")
    lines = [line for line in short.splitlines() if line.startswith("|")]
    assert all(line.count("|") == 7 for line in lines)


def test_html_shows_every_row_and_escapes_names(tmp_path: Path) -> None:
    html = brief_html(comparison(tmp_path, "l1", "<b>"))
    assert html.count("<table>") == 2
    assert html.count("<td>&lt;b&gt;</td>") == 2
    assert "<td><b>" not in html
