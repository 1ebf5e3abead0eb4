"""Counted operations against counts by hand, and rates in a run's metrics."""

import pytest
import torch
from torch import nn

from hdcid_cli.training.speed import FlopCounter, matrix_rate


def count(function) -> int:
    with FlopCounter() as counter:
        function()
    return counter.get_total_flops()


def test_forward_and_backward_of_a_product_are_three_products():
    layer, x = nn.Linear(6, 5), torch.randn(7, 6, requires_grad=True)
    assert count(lambda: layer(x).sum().backward()) == 3 * 2 * 7 * 6 * 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lstm_counts_every_matrix_at_every_step(dtype):
    """A fused kernel counts it in float32; float64 has none, and counts single products."""
    lstm, x = nn.LSTM(6, 5, num_layers=2, batch_first=True).to(dtype), torch.randn(3, 4, 6, dtype=dtype)
    forward = 2 * 3 * 4 * 4 * 5 * ((6 + 5) + (5 + 5))
    with torch.no_grad():
        assert count(lambda: lstm(x)) == forward
    x.requires_grad_()
    assert count(lambda: lstm(x)[0].sum().backward()) == pytest.approx(
        3 * forward, rel=0.15
    )  # nothing flows into the first state


def test_measuring_the_machine_leaves_the_random_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    assert matrix_rate("cpu", "float32", repeats=1) > 1e8
    torch.testing.assert_close(torch.rand(3), expected)
