"""What a row is to the page: how it looks, and which switch hides it."""

from tracking.comparison.comparison import Row, Verdict

STANDINGS = ("lead", "level", "worse", "control", "aside")  #: From the best to what is beside.
KINDS = {
    Verdict.BEST: "lead",
    Verdict.ONLY: "lead",
    Verdict.SAME: "lead",
    Verdict.TIE: "level",
    Verdict.UNDECIDED: "level",
    Verdict.UNTESTED: "level",
    Verdict.WORSE: "worse",
    Verdict.CONTROL: "control",
    Verdict.OFF_TARGET: "aside",
    Verdict.MISSING: "aside",
    Verdict.UNRANKED: "level",
    Verdict.NO_VERDICT: "level",
    Verdict.WITHIN: "lead",
    Verdict.BEYOND: "worse",
}


def standing_of(row: Row) -> str:
    """Return ``lead``, ``level`` (not told from it), ``worse``, ``control`` or ``aside``."""
    if row.leads and row.verdict is not Verdict.NO_VERDICT:
        return "lead"
    return KINDS[row.verdict]
