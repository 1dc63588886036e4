"""How much of a GPU each worker of a sweep takes, so that as many trials share it as fit.

A share is a promise, no wall: it says how many workers Ray places on one GPU, and nothing keeps a
trial from taking more memory than that.
"""

HEADROOM = 1.25  #: Kept free above the most that a trial was seen to take.
MOST_PER_GPU = 16  #: Workers on one GPU, however little their trials need.
_PARTS = 10_000  #: Ray counts a GPU in so many parts; sixths that are rounded up do not fit.


class Packing:
    """The share of a GPU that every worker of a sweep asks for.

    Unless it is fixed, it is a whole GPU until a trial has been measured. From then on it is what
    the most demanding trial so far needs, rounded up to one part in a whole number: an arm that
    needs more than the ones before grows it by its first trial, or by running out of memory.

    Args:
        fixed: Share of a GPU, or whole GPUs; None: it is found out.
    """

    def __init__(self, fixed: float | None = None) -> None:
        self._fixed = fixed
        self._per_gpu: int | None = None  # trials that fit; None: none was measured

    @property
    def share(self) -> float:
        """What to ask Ray for."""
        if self._fixed is not None:
            return self._fixed
        return _PARTS // (self._per_gpu or 1) / _PARTS

    def measured(self, peak_bytes: int, total_bytes: int) -> None:
        """Take in what a trial took at most of a GPU that has ``total_bytes``."""
        self._allow(int(total_bytes / (HEADROOM * peak_bytes)))

    def ran_out(self, share: float) -> bool:
        """Take in that a trial did not fit into ``share``; return whether it gets a larger one."""
        if self._fixed is not None or share >= 1:
            return False
        self._allow(round(1 / share) // 2)
        return True

    def _allow(self, per_gpu: int) -> None:
        fewest = MOST_PER_GPU if self._per_gpu is None else self._per_gpu
        self._per_gpu = max(1, min(fewest, per_gpu))

    @property
    def remedy(self) -> str:
        """Say what can be done for a trial that does not fit."""
        if self._fixed is not None and self._fixed < 1:
            return (
                f"the trial does not fit into resources.gpu_share, {self._fixed:g}; raise it, or "
                "leave it out, so that it is found out"
            )
        return (
            "the trial does not fit into a whole GPU; use GPUs with more memory, or a new sweep "
            "with a smaller recipe.batch_size"
        )
