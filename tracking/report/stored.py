"""Where the report of a sweep lies among its artifacts."""

from tracking.artifacts import ArtifactStore
from tracking.comparison.comparison import Comparison
from tracking.report.report import to_html, to_json, to_markdown


def store_report(store: ArtifactStore, comparison: Comparison) -> dict[str, str]:
    """Store a sweep's report in every form.

    Returns:
        Where each lies in the store, by file name.

    Raises:
        OSError: The store takes no file: a full disk, say.
    """
    files = {
        "report.html": to_html(comparison),
        "report.md": to_markdown(comparison),
        "report.json": to_json(comparison),
    }
    folder = f"sweeps/{comparison.sweep}"
    for name, text in files.items():
        store.write_bytes(f"{folder}/{name}", text.encode())
    return {name: f"{folder}/{name}" for name in files}
