"""Convolutions as matrix products against the library's."""

import pytest
import torch
from torch import nn

from hdcid_cli.models.convolution import Conv1x1, Conv3x3, ConvTranspose1x1, ConvTranspose3x3, channels_last

PAIRS = [
    (lambda: Conv1x1(6, 5), lambda: nn.Conv2d(6, 5, 1)),
    (lambda: Conv3x3(6, 5), lambda: nn.Conv2d(6, 5, 3)),
    (lambda: Conv3x3(6, 5, padding=1, bias=False), lambda: nn.Conv2d(6, 5, 3, padding=1, bias=False)),
    (lambda: ConvTranspose1x1(6, 5), lambda: nn.ConvTranspose2d(6, 5, 1)),
    (lambda: ConvTranspose3x3(6, 5), lambda: nn.ConvTranspose2d(6, 5, 3)),
]


def as_ours(value):
    return channels_last(value) if tuple(value.shape[2:]) == (3, 3) else value


@pytest.mark.parametrize("height,width", [(3, 3), (7, 5)])
@pytest.mark.parametrize("ours,theirs", PAIRS, ids=["1x1", "3x3", "3x3 padded", "transposed 1x1", "transposed 3x3"])
def test_values_and_gradients_are_the_librarys(ours, theirs, height, width):
    ours, theirs = ours().double(), theirs().double()
    ours.load_state_dict({name: as_ours(value) for name, value in theirs.state_dict().items()})
    x = torch.randn(4, height, width, 6, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    mine, expected = ours(x), theirs(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(mine, expected)
    weight = torch.randn_like(expected)
    (mine * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, as_ours(other.grad))


def test_gradients_lie_in_memory_as_the_weights_do():
    """So that the optimizer reads both in one go."""
    for module in (Conv3x3(6, 5), ConvTranspose3x3(6, 5)):
        module(torch.randn(2, 5, 5, 6)).sum().backward()
        assert module.weight.is_contiguous()
        assert module.weight.grad.is_contiguous()


@pytest.mark.parametrize(
    "module", [Conv3x3(6, 5), Conv3x3(6, 5, padding=1), ConvTranspose3x3(6, 5)], ids=["3x3", "padded", "transposed"]
)
def test_a_gpu_convolves_to_the_same_values(module):
    x = torch.randn(4, 5, 5, 6)
    torch.testing.assert_close(module.convolve(x), module(x))
