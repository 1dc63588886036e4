"""Where in a browser MLflow shows a sweep."""

from tracking.errors import TrackingError
from tracking.mlflow_mirror.client import Mlflow
from tracking.mlflow_mirror.mirror import EXPERIMENTS


class NotShownError(TrackingError, LookupError):
    """MLflow has no experiment of a sweep."""

    def __init__(self, sweep: str, known: str) -> None:
        super().__init__(sweep, known)
        self.sweep, self.known = sweep, known

    def __str__(self) -> str:
        return (
            f"MLflow here does not show a sweep {self.sweep!r}; it shows: {self.known}. "
            "`prunesweep publish NAME` sends a sweep that is in the ledger."
        )


def addresses_of(url: str, sweep: str | None) -> list[str]:
    """Return the address of a sweep's experiment; of a server and all its sweeps where none is.

    Args:
        url: A server that answers.
        sweep: Name of the sweep; None: all of them.

    Raises:
        NotShownError: MLflow has nothing of this sweep.
        MirrorError: It does not answer.
    """
    found = {
        name.removeprefix(EXPERIMENTS): f"{url}/#/experiments/{experiment}"
        for name, experiment in Mlflow(url).experiments(EXPERIMENTS).items()
    }
    if sweep is None:
        return [url, *(f"{name}: {address}" for name, address in found.items())]
    if sweep not in found:
        raise NotShownError(sweep, ", ".join(found) or "none")
    return [found[sweep]]
