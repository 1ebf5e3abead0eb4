"""Convolutions over small channels-last maps [N, H, W, C], without a change of layout on the way.

On a CPU they are matrix products: the maps are 7 x 7 and smaller and the channels up to 2048, where
a product reaches nine tenths of the machine's matrix rate and a convolution a third of it. A GPU
convolves. Parameters have the shapes and names of `nn.Conv2d` and `nn.ConvTranspose2d`, and lie
channels-last in memory.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, linear, pad


def _channels_last(module: nn.Module) -> None:
    module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)


class Conv1x1(nn.Conv2d):
    """[N, H, W, C] -> [N, H, W, O]."""

    def __init__(self, channels: int, out: int, bias: bool = True):
        super().__init__(channels, out, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight.flatten(1), self.bias)


class Conv3x3(nn.Conv2d):
    """[N, H, W, C] -> [N, H - 2 + 2 padding, W - 2 + 2 padding, O]."""

    def __init__(self, channels: int, out: int, padding: int = 0, bias: bool = True):
        super().__init__(channels, out, 3, padding=padding, bias=bias)
        _channels_last(self)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return _over_maps(conv2d, x, self.weight, self.bias, padding=self.padding)
        edge = self.padding[0]
        x = pad(x, (0, 0, edge, edge, edge, edge)) if edge else x
        height, width = x.shape[1] - 2, x.shape[2] - 2
        patches = torch.cat([x[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], dim=-1)
        return linear(patches, self.weight.permute(0, 2, 3, 1).flatten(1), self.bias)


class ConvTranspose1x1(nn.ConvTranspose2d):
    """[N, H, W, C] -> [N, H, W, O]."""

    def __init__(self, channels: int, out: int):
        super().__init__(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight.flatten(1).T, self.bias)


class ConvTranspose3x3(nn.ConvTranspose2d):
    """[N, H, W, C] -> [N, H + 2, W + 2, O]."""

    def __init__(self, channels: int, out: int):
        super().__init__(channels, out, 3)
        _channels_last(self)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return _over_maps(conv_transpose2d, x, self.weight, self.bias)
        spread = x @ self.weight.permute(0, 2, 3, 1).flatten(1)  # what each cell gives to its nine neighbours
        parts = spread.unflatten(-1, (9, self.out_channels)).unbind(dim=3)
        shifted = [pad(part, (0, 0, n % 3, 2 - n % 3, n // 3, 2 - n // 3)) for n, part in enumerate(parts)]
        return torch.stack(shifted).sum(dim=0) + self.bias


def _over_maps(convolve, x: Tensor, *arguments, **options) -> Tensor:
    """A library's convolution, which wants [N, C, H, W]; in memory nothing moves."""
    return convolve(x.permute(0, 3, 1, 2), *arguments, **options).permute(0, 2, 3, 1)
