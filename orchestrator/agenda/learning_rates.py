"""One learning rate for all: each is tried on the uniform L1 control, and the best is taken."""

from tracking.results import Result, given


class LearningRates:
    """Rates that are tried, by their place in the grid.

    Args:
        rates: Every rate there is to be tried.
    """

    def __init__(self, rates: tuple[float, ...]) -> None:
        self._rates = rates
        self._tried: dict[int, Result | None] = {}

    def came(self, number: int, result: Result | None) -> None:
        """Take in how a rate did; None: it could not be tried."""
        self._tried[number] = result

    @property
    def is_decided(self) -> bool:
        """Every rate was tried."""
        return len(self._tried) == len(self._rates)

    @property
    def best(self) -> float | None:
        """The rate with the best validation accuracy, then loss; None: none ended well."""
        back = {number: found for number, found in self._tried.items() if found is not None}
        if not back:
            return None
        best = max(back, key=lambda n: (given(back[n].val_accuracy), -given(back[n].val_loss), n))
        return self._rates[best]
