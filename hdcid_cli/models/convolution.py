"""Convolutions over small channels-last maps [N, H, W, C], without a change of layout on the way.

On a CPU they are matrix products: the maps are 7 x 7 and smaller and the channels up to 2048, where
a product reaches nine tenths of the machine's matrix rate and a convolution a third of it. Forward and
backward, the model's six of 3 x 3 take 1.7 seconds of a core for 20 maps, the library's 5.8; the two that
make maps larger, of which products leave out the zeros, 0.4 and 1.6. A GPU convolves. Weights of 3 x 3
start as in `nn.Conv2d` and `nn.ConvTranspose2d`, but with channels last, [first axis, 3, 3, second axis]:
so they enter a product as they lie, and the optimizer reads them in one go.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, linear, pad


class Conv1x1(nn.Conv2d):
    """[N, H, W, C] -> [N, H, W, O]."""

    def __init__(self, channels: int, out: int, bias: bool = True):
        super().__init__(channels, out, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight.flatten(1), self.bias)


class _ThreeByThree(nn.Module):
    """Weight and bias of a library's convolution, channels last."""

    def __init__(self, library: nn.Conv2d | nn.ConvTranspose2d, padding: int = 0):
        super().__init__()
        self.weight = nn.Parameter(channels_last(library.weight.detach()))
        self.bias: Tensor | None = library.bias
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        return self.multiply(x) if x.device.type == "cpu" else self.convolve(x)

    def multiply(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def convolve(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    @property
    def library_weight(self) -> Tensor:
        """The weight in the library's order of axes, a view."""
        return self.weight.permute(0, 3, 1, 2)


class Conv3x3(_ThreeByThree):
    """[N, H, W, C] -> [N, H - 2 + 2 padding, W - 2 + 2 padding, O]; weight [O, 3, 3, C]."""

    def __init__(self, channels: int, out: int, padding: int = 0, bias: bool = True):
        super().__init__(nn.Conv2d(channels, out, 3, bias=bias), padding)

    def multiply(self, x: Tensor) -> Tensor:
        """By a matrix product with all patches."""
        edge = self.padding
        x = pad(x, (0, 0, edge, edge, edge, edge)) if edge else x
        height, width = x.shape[1] - 2, x.shape[2] - 2
        patches = torch.cat([x[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], dim=-1)
        return linear(patches, self.weight.flatten(1), self.bias)

    def convolve(self, x: Tensor) -> Tensor:
        """By the library, which wants [N, C, H, W]; in memory nothing moves."""
        return conv2d(x.permute(0, 3, 1, 2), self.library_weight, self.bias, padding=self.padding).permute(0, 2, 3, 1)


class ConvTranspose1x1(nn.ConvTranspose2d):
    """[N, H, W, C] -> [N, H, W, O]."""

    def __init__(self, channels: int, out: int):
        super().__init__(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # the library takes an output size, too
        return linear(x, self.weight.flatten(1).T, self.bias)


class ConvTranspose3x3(_ThreeByThree):
    """[N, H, W, C] -> [N, H + 2, W + 2, O]; weight [C, 3, 3, O]."""

    def __init__(self, channels: int, out: int):
        super().__init__(nn.ConvTranspose2d(channels, out, 3))

    def multiply(self, x: Tensor) -> Tensor:
        """By a matrix product, of which no factor is a zero at the maps' edges."""
        spread = x @ self.weight.flatten(1)  # what each cell gives to its nine neighbours
        parts = spread.unflatten(-1, (9, -1)).unbind(dim=3)
        shifted = [pad(part, (0, 0, n % 3, 2 - n % 3, n // 3, 2 - n // 3)) for n, part in enumerate(parts)]
        summed = torch.stack(shifted).sum(dim=0)
        return summed if self.bias is None else summed + self.bias

    def convolve(self, x: Tensor) -> Tensor:
        """By the library, which wants [N, C, H, W]; in memory nothing moves."""
        return conv_transpose2d(x.permute(0, 3, 1, 2), self.library_weight, self.bias).permute(0, 2, 3, 1)


def channels_last(weight: Tensor) -> Tensor:
    """A library's weight [first, second, 3, 3] -> ours [first, 3, 3, second]."""
    return weight.permute(0, 2, 3, 1).contiguous()
