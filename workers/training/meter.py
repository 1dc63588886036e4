"""What a trial spends: training steps, images and device-seconds, by act."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from methods import State
from workers.training.measure import synchronize

Act = Literal["prepare", "statistics", "select", "recover", "measure"]


class Meter:
    """Charges what is spent to the act in progress.

    Acts nest: time goes to the innermost one only, so that measuring inside recovery is not
    charged as recovery.
    """

    def __init__(self, device: torch.device) -> None:
        self.steps: Counter[Act] = Counter()  #: Optimizer steps.
        self.images: Counter[Act] = Counter()  #: Training images, each time one is used.
        #: By the clock, read when the device has finished.
        self.seconds: defaultdict[Act, float] = defaultdict(float)
        self._device = device
        self._acts: list[Act] = ["prepare"]
        self._since = time.perf_counter()

    def state_dict(self) -> State:
        """Return all that was charged."""
        self.settle()
        return {
            "steps": {**self.steps},
            "images": {**self.images},
            "seconds": {**self.seconds},
        }

    def load_state_dict(self, state: State) -> None:
        """Take over steps and images; seconds add up over the attempts at a trial."""
        self.steps, self.images = Counter(state["steps"]), Counter(state["images"])
        for act, seconds in state["seconds"].items():
            self.seconds[act] += seconds

    @contextmanager
    def act(self, act: Act) -> Iterator[None]:
        """Charge what happens inside to ``act``."""
        self.settle()
        self._acts.append(act)
        try:
            yield
        finally:
            self.settle()
            self._acts.pop()

    @property
    def current(self) -> Act:
        """The act in progress."""
        return self._acts[-1]

    def settle(self) -> None:
        """Charge the time since the last reading to the act in progress."""
        synchronize(self._device)
        now = time.perf_counter()
        self.seconds[self.current] += now - self._since
        self._since = now

    def charge(self, *, steps: int = 0, images: int = 0) -> None:
        """Charge training steps and images to the act in progress."""
        self.steps[self.current] += steps
        self.images[self.current] += images
