"""Mixed precision: networks compute in bfloat16, with parameters that are rounded all at once.

Autocast alone rounds each parameter where it is read, and turns each gradient back: on a GPU two operators for every
parameter. The numbers are the same.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hdcid_cli.models.convolution import Conv3x3, ConvTranspose3x3

# What autocast computes in bfloat16; norms and LSTMs keep their digits.
ROUNDED = (nn.Linear, nn.MultiheadAttention, nn.Conv2d, nn.ConvTranspose2d, Conv3x3, ConvTranspose3x3)


@contextmanager
def mixed_precision(device: torch.device, parts: Iterable[Sequence[nn.Module]]) -> Iterator[None]:
    """While the block runs, networks compute in bfloat16.

    Args:
        parts: those networks; the parameters of a part get their gradients together.
    """
    places: list[tuple[dict[str, Any], str, nn.Parameter]] = []
    try:
        for part in parts:
            inner = dict.fromkeys(each for module in part for each in module.modules() if isinstance(each, ROUNDED))
            own = [each._parameters for each in inner]
            found = [(of, name, p) for of in own for name, p in of.items() if p is not None]
            places += found
            rounded = _Rounded.apply(*(p for _, _, p in found)) if found else ()
            for (of, name, _), low in zip(found, rounded, strict=True):
                of[name] = low  # no parameter for as long: the module's own dictionary takes any tensor
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            yield
    finally:
        for of, name, parameter in places:
            of[name] = parameter


class _Rounded(torch.autograd.Function):
    """Tensors of one precision -> the same in bfloat16, by one operator; and so for their gradients."""

    @staticmethod
    def forward(context: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        context.exact = tensors[0].dtype
        context.set_materialize_grads(False)
        rounded = [torch.empty_like(x, dtype=torch.bfloat16) for x in tensors]
        torch._foreach_copy_(rounded, tensors)
        needed = context.needs_input_grad
        context.mark_non_differentiable(*(x for x, need in zip(rounded, needed, strict=True) if not need))
        return tuple(rounded)

    @staticmethod
    def backward(context: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        there = [x for x in gradients if x is not None]
        if not there:
            return gradients
        exact = [torch.empty(x.shape, dtype=context.exact, device=x.device) for x in there]
        torch._foreach_copy_(exact, there)
        found = iter(exact)
        return tuple(None if x is None else next(found) for x in gradients)
