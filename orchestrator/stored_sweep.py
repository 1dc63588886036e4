"""What the records of a sweep say, for a notebook: frames, a summary, the network to take along."""

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.specification.spec import SweepSpec
from search_spaces.importance import importance_of
from tracking.comparison.compare import compare
from tracking.comparison.comparison import Comparison
from tracking.errors import MissingLedgerError, UnknownSweepError
from tracking.ledger.ledger import Ledger
from tracking.records import SweepRecord

if TYPE_CHECKING:
    import pandas as pd


class StoredSweep:
    """Reads what is in the ledger now, finished or not; nothing is kept between two calls.

    The columns of every frame are told in `tracking.comparison.frames`.

    Raises (every method):
        MissingLedgerError: There is no ledger yet.
        UnknownSweepError: The ledger has no sweep of this name yet.
        LedgerError: It cannot be read.
    """

    spec: SweepSpec

    def compare(self) -> "pd.DataFrame":
        """Return a row per arm and control at each target: accuracy, cost, effort, verdict."""
        from tracking.comparison.frames import compare_frame

        return compare_frame(self.comparison())

    def trials(self) -> "pd.DataFrame":
        """Return a row per place in the sweep: what it is for, and what its trial brought back."""
        from tracking.comparison.frames import trials_frame

        with self._records() as (ledger, sweep):
            return trials_frame(ledger.entries(sweep.id), ledger.trials(sweep.id))

    def curves(self) -> "pd.DataFrame":
        """Return a row per trial and step, a column per metric that was reported."""
        from tracking.comparison.frames import curves_frame

        with self._records() as (ledger, sweep):
            entries, trials = ledger.entries(sweep.id), ledger.trials(sweep.id)
            return curves_frame(entries, trials, ledger.curves(sweep.id))

    def ratios(self) -> "pd.DataFrame":
        """Return a row per place and group of layers: filters before and after, share removed."""
        from tracking.comparison.frames import ratios_frame

        with self._records() as (ledger, sweep):
            return ratios_frame(ledger.entries(sweep.id), ledger.trials(sweep.id))

    def front(self) -> "pd.DataFrame":
        """Return networks by accuracy and MACs, and which no other one beats in both."""
        from tracking.comparison.frames import front_frame

        return front_frame(self.comparison())

    def status(self) -> "pd.DataFrame":
        """Return how many places have a trial in each state, by role, arm and target."""
        from tracking.comparison.frames import status_frame

        with self._records() as (ledger, sweep):
            return status_frame(ledger.entries(sweep.id), ledger.trials(sweep.id))

    def comparison(self) -> Comparison:
        """Compare the arms by what is in the ledger; what `run` returns, at any time."""
        with self._records() as (ledger, sweep):
            return compare(ledger, sweep, importance=importance_of)

    def export(
        self, trial: str, to: str | Path, *, onnx: bool = False, torch_export: bool = False
    ) -> Path:
        """Write a network to a folder that `load_pruned` reads; return the folder.

        Args:
            trial: ``best:ARM:TARGET``, or a trial's number, or the first digits of its uid.
            to: The folder: new, empty, or of the same trial.
            onnx: Write an ONNX file, too.
            torch_export: Write a file for `torch.export.load`, too.

        Raises:
            PackagesMissingError: What an ONNX file needs is not installed.
            ExchangeError: The network cannot be written so.
            TrialChoiceError: ``trial`` leads to none, or to one that has no network.
            ExportError: The folder cannot be written, or holds something else.
        """
        from orchestrator.exporting import export, forms_of

        forms = forms_of(onnx=onnx, torch_export=torch_export)
        with self._records() as (ledger, sweep):
            return export(ledger, sweep, self.spec.tracking, trial, to, forms).folder

    def _repr_html_(self) -> str:
        """Show the verdicts in a notebook's cell."""
        from tracking.report.brief import brief_html

        try:
            return brief_html(self.comparison())
        except (MissingLedgerError, UnknownSweepError):
            return f"<h3>{escape(self.spec.name)}</h3>\n<p>It has not been run yet.</p>"

    @contextmanager
    def _records(self) -> Iterator[tuple[Ledger, SweepRecord]]:
        with Ledger.open(self.spec.tracking.ledger_url, create=False) as ledger:
            yield ledger, ledger.sweep(self.spec.name)
