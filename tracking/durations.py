"""Times as people read them: one way for progress, dry-run, status and report."""


def duration(seconds: float) -> str:
    """Write a time in the unit that suits it: ``0.25 s``, ``45 s``, ``12 min``, ``3.4 h``."""
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
