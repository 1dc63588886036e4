"""What a program would make a device wait for, counted on the CPU, where nothing waits.

Steps of optimizers are left out: torch counts them in tensors that stay on the CPU.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

#: Operations that a program cannot go on from before the device has told it a value: ``item``,
#: ``float`` and ``bool`` come to the first, indexing by booleans to the others.
READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero")
#: Numbers of Python become a tensor: on a device, a transfer. Indexing by a list is one.
MADE = ("lift_fresh",)


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts reads of values, tensors made of Python's numbers, and moves between devices."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()
        self._moves = _Moves(self.counts)
        self._stepping = False

    def __enter__(self) -> "Traffic":
        self._hooks = (
            register_optimizer_step_pre_hook(lambda *_: self._set_stepping(True)),
            register_optimizer_step_post_hook(lambda *_: self._set_stepping(False)),
        )
        self._moves.__enter__()  # type: ignore[no-untyped-call]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._moves.__exit__(*error)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()

    def _set_stepping(self, stepping: bool) -> None:
        self._stepping = stepping

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = func.overloadpacket.__name__
        if self._stepping:
            pass
        elif name in READS:
            self.counts["reads"] += 1
        elif name in MADE:
            self.counts["made"] += 1
        elif name in {"index", "index_put", "index_put_"}:
            self.counts["reads"] += any(
                isinstance(index, Tensor) and index.dtype in {torch.bool, torch.uint8}
                for index in args[1]
            )
        return func(*args, **(kwargs or {}))


class _Moves(TorchFunctionMode):
    """Counts calls that name a device, whether or not the tensor lies there."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self._counts = counts

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in {Tensor.cpu, Tensor.cuda}:
            self._counts["moves"] += 1
        elif func is Tensor.to:
            named = (*args[1:2], kwargs.get("device"))
            self._counts["moves"] += any(isinstance(one, torch.device | str) for one in named)
        return func(*args, **kwargs)
