"""Pictures of the report, to be looked at: ``python -m tests.browser.screenshots FOLDER``.

At 3 and at 29 arms, for a phone, a laptop and a wide screen, light and dark.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.browser.chromium import chromium
from tests.browser.made_up import made_up_sweep
from tracking.report.report import to_html

SIZES = ((3, 390), (3, 1280), (29, 390), (29, 1280), (29, 3840))

#: Shows the folds of the first target alone.
FOLDED = """for (const section of document.querySelectorAll("section")) {
  const folds = section.querySelectorAll(":scope > details");
  for (const fold of folds) fold.open = true;
  if (folds.length > 1) break;
  section.hidden = true;
}"""


def main(folder: Path) -> None:
    """Write a PNG per number of arms, width and scheme, and the pages beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as profile, chromium(Path(profile)) as browser:
        for arms, width in SIZES:
            page = folder / f"report-{arms}.html"
            if not page.exists():
                targets = 3 if arms < 5 else 6
                page.write_text(to_html(made_up_sweep(arms, targets)), encoding="utf-8")
            for scheme in ("light", "dark"):
                browser.open(page, width, dark=scheme == "dark")
                browser.screenshot(folder / f"report-{arms}-{width}-{scheme}.png")
            browser.evaluate(FOLDED)
            browser.screenshot(folder / f"tables-{arms}-{width}.png", height=6000)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
