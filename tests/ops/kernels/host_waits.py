"""Counts what would make the host wait for a CUDA device, while the same code runs on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from numbers import Number
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# operators whose result, or its size, the host reads
READING = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.bincount,
    aten.equal,
}
MASKS = (torch.bool, torch.uint8)
# functions that copy between the host and a device, without an operator to be seen on a CPU
COPYING = {Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.cuda}


class HostWaits:
    """A context; `seen` then names everything in it after which the host would have waited, in order."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._stack = ExitStack()

    def __enter__(self) -> HostWaits:
        functions = _Functions(self.seen)
        self._stack.enter_context(functions)
        self._stack.enter_context(_Operators(self.seen, functions))
        self._stack.enter_context(patch.object(torch, "from_numpy", functions.on_host(torch.from_numpy)))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class _Functions(TorchFunctionMode):
    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.seen = seen
        self.copied: list[Tensor] = []  # to the host, where reading them is free
        # x[...] = 0 fills on the device, and from_numpy stays on the host; on a CPU both look like a copied constant
        self.copies_nothing = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        to_device = function is Tensor.to and any(
            isinstance(value, torch.device) or value == "cpu" for value in (*args[1:], *kwargs.values())
        )
        if to_device or (function in COPYING and not any(args[0] is tensor for tensor in self.copied)):
            self.seen.append(function.__name__)
        if function is Tensor.__setitem__ and isinstance(args[2], Number | bool):
            function = self.on_host(function)
        result = function(*args, **kwargs)
        if function is Tensor.cpu:
            self.copied.append(result)
        return result

    def on_host(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            self.copies_nothing = True
            try:
                return function(*args, **kwargs)
            finally:
                self.copies_nothing = False

        return run


class _Operators(TorchDispatchMode):
    def __init__(self, seen: list[str], functions: _Functions) -> None:
        super().__init__()
        self.seen, self.functions = seen, functions

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._waits(operator, args, kwargs or {}):
            self.seen.append(str(operator))
        return operator(*args, **(kwargs or {}))

    def _waits(self, operator: Any, args: Any, kwargs: dict[str, Any]) -> bool:
        packet = operator.overloadpacket
        if packet in READING:
            return True
        if packet is aten.lift_fresh:  # a tensor of Python's values, made on the host and copied
            return not self.functions.copies_nothing
        if packet is aten.repeat_interleave:
            return kwargs.get("output_size") is None and isinstance(args[-1], Tensor)
        if packet in (aten.index, aten.index_put, aten.index_put_):
            masks = [index for index in args[1] if index is not None and index.dtype in MASKS]
            fills = packet is not aten.index and len(args[1]) == 1 and args[2].numel() == 1
            return bool(masks) and not fills
        return False
