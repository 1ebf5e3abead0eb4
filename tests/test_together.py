"""Networks that compute together give what each gives alone, and the same gradients."""

import pytest
import torch
from torch import nn

from hdcid_cli.models.encoders import make_transformer
from hdcid_cli.models.together import lstms_together, transformers, transformers_together


def gradients(outputs: torch.Tensor, modules, x: torch.Tensor) -> list[torch.Tensor]:
    weights = torch.linspace(-1, 1, outputs.numel()).view_as(outputs)
    return torch.autograd.grad((outputs * weights).sum(), [x, *(p for each in modules for p in each.parameters())])


pytestmark = pytest.mark.usefixtures("double")


def close(ours, theirs) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("steps", [1, 6])
def test_lstms_together_are_the_librarys(layers, steps):
    modules = [nn.LSTM(5, 7, layers, batch_first=True) for _ in range(3)]
    x = torch.randn(3, 4, steps, 5, requires_grad=True)
    ours, theirs = lstms_together(modules, x), torch.stack([each(part)[0] for each, part in zip(modules, x)])
    close(ours, theirs)
    for mine, other in zip(gradients(ours, modules, x), gradients(theirs, modules, x)):
        close(mine, other)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("one", [False, True])
def test_transformers_together_are_the_librarys(padded, one):
    modules = [make_transformer(8, 2, 2, 12, 0.0) for _ in range(3)]
    modules = modules[:1] * 3 if one else modules
    for p in modules[-1].parameters():
        nn.init.normal_(p, std=0.5)  # norms too
    x = torch.randn(3, 4, 6, 8, requires_grad=True)
    padding = torch.arange(6) >= torch.randint(1, 7, (3, 4, 1)) if padded else None
    ours = (transformers if one else transformers_together)(modules, x, padding)
    masks = padding if padded else [None] * 3
    theirs = torch.stack([each(z, src_key_padding_mask=mask) for each, z, mask in zip(modules, x, masks)])
    if padded:  # what does not count is not looked at
        ours, theirs = (z[~padding] for z in (ours, theirs))
    close(ours, theirs)
    for mine, other in zip(
        gradients(ours, modules[:1] if one else modules, x), gradients(theirs, modules[:1] if one else modules, x)
    ):
        close(mine, other)


def test_dropout_acts_in_training_alone_and_otherwise_in_every_part():
    modules = [make_transformer(8, 1, 2, 12, 0.5) for _ in range(2)]
    x = torch.randn(2, 3, 5, 8)
    assert not torch.equal(transformers_together(modules, x), transformers_together(modules, x))
    for module in modules:
        module.eval()
    assert torch.equal(transformers_together(modules, x), transformers_together(modules, x))
