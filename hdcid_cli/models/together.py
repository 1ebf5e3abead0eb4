"""Several networks of one shape at once, so that a GPU gets a few large products instead of many small ones.

Parameters are put together in every step, which costs a copy of what are the model's smaller networks.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, layer_norm, scaled_dot_product_attention


def lstms(modules: Sequence[nn.LSTM], x: Tensor) -> Tensor:
    """What each LSTM makes of its own sequence: [M, B, T, C] -> [M, B, T, H], as `nn.LSTM` with `batch_first` does.

    On a CPU, whose library has one operator for a whole sequence, they run one after the other. Elsewhere a step is
    one product for all of them and one fused operator; PyTorch alone has no such thing.

    Args:
        modules: of one shape, in one direction, without projections and dropout.
    """
    if x.device.type == "cpu":
        return torch.stack([module(part)[0] for module, part in zip(modules, x, strict=True)])
    return lstms_together(modules, x)


def lstms_together(modules: Sequence[nn.LSTM], x: Tensor) -> Tensor:
    """The same by products of all modules, on any device."""
    for layer in range(modules[0].num_layers):
        bias = _stack(modules, f"bias_ih_l{layer}") + _stack(modules, f"bias_hh_l{layer}")
        inputs = _linear(x.flatten(1, 2), _stack(modules, f"weight_ih_l{layer}"), bias).view(*x.shape[:3], -1)
        recurrent = _stack(modules, f"weight_hh_l{layer}").mT
        hidden = cell = x.new_zeros(*x.shape[:2], recurrent.shape[1])
        outputs = []
        for gates in inputs.unbind(2):
            hidden, cell = _cell(gates, hidden @ recurrent, cell)
            outputs.append(hidden)
        x = torch.stack(outputs, dim=2)
    return x


def _cell(inputs: Tensor, recurrent: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One step from the gates' two parts [M, B, 4 H] and the cell [M, B, H]: the new hidden state and cell."""
    if cell.device.type == "cuda":  # the library's own step, which wants matrices
        parts = (part.flatten(0, 1) for part in (inputs, recurrent, cell))
        new, cell, _ = torch.ops.aten._thnn_fused_lstm_cell(*parts)
        return new.view_as(inputs[..., : new.shape[-1]]), cell.view_as(inputs[..., : new.shape[-1]])
    admit, forget, candidate, show = (inputs + recurrent).chunk(4, dim=-1)
    cell = forget.sigmoid() * cell + admit.sigmoid() * candidate.tanh()
    return show.sigmoid() * cell.tanh(), cell


def transformers(modules: Sequence[nn.TransformerEncoder], x: Tensor, padding: Tensor | None = None) -> Tensor:
    """What each transformer makes of its own segments: [M, B, T, D] -> the same, as `nn.TransformerEncoder` does.

    On a CPU, which gains nothing by large products, they run one after the other.

    Args:
        modules: of one shape, post-norm with ReLU, without a norm at their end; or one and the same several times.
        padding: [M, B, T], true where a segment does not count.
    """
    if all(module is modules[0] for module in modules):
        one = modules[0](x.flatten(0, 1), src_key_padding_mask=None if padding is None else padding.flatten(0, 1))
        return one.view_as(x)
    if x.device.type == "cpu":
        masks = [None] * len(modules) if padding is None else padding
        parts = zip(modules, x, masks, strict=True)
        return torch.stack([module(part, src_key_padding_mask=mask) for module, part, mask in parts])
    return transformers_together(modules, x, padding)


def transformers_together(modules: Sequence[nn.TransformerEncoder], x: Tensor, padding: Tensor | None = None) -> Tensor:
    """The same by products of all modules, on any device."""
    for layers in zip(*(module.layers for module in modules), strict=True):
        x = _transformer_layers(layers, x, padding)
    return x


def _transformer_layers(layers: Sequence[nn.TransformerEncoderLayer], x: Tensor, padding: Tensor | None) -> Tensor:
    first, shape = layers[0], x.shape
    heads = first.self_attn.num_heads

    def drop(x: Tensor, module: nn.Dropout) -> Tensor:
        return dropout(x, module.p, module.training)

    x = x.flatten(1, 2)  # [M, N, D]
    attention = [layer.self_attn for layer in layers]
    inside = _linear(x, _stack(attention, "in_proj_weight"), _stack(attention, "in_proj_bias"))
    # [M, B, T, 3, heads, D / heads] -> three of [M B, heads, T, D / heads]
    query, key, value = inside.view(*shape[:3], 3, heads, -1).permute(3, 0, 1, 4, 2, 5).flatten(1, 2)
    mask = None if padding is None else ~padding.flatten(0, 1)[:, None, None, :]
    rate = first.self_attn.dropout if first.self_attn.training else 0.0
    read = scaled_dot_product_attention(query, key, value, mask, rate).transpose(1, 2).reshape(x.shape)
    read = linears([each.out_proj for each in attention], read)
    x = _norms([layer.norm1 for layer in layers], x + drop(read, first.dropout1))
    inner = drop(linears([layer.linear1 for layer in layers], x).relu(), first.dropout)
    inner = linears([layer.linear2 for layer in layers], inner)
    return _norms([layer.norm2 for layer in layers], x + drop(inner, first.dropout2)).view(shape)


def _stack(modules: Sequence[nn.Module], name: str) -> Tensor:
    return torch.stack([getattr(module, name) for module in modules])


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """[M, N, C], [M, O, C], [M, O] -> [M, N, O]."""
    return torch.baddbmm(bias.unsqueeze(1), x, weight.mT)


def linears(modules: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Each `nn.Linear` on its own part: [M, N, C] -> [M, N, O]."""
    return _linear(x, _stack(modules, "weight"), _stack(modules, "bias"))


def _norms(modules: Sequence[nn.LayerNorm], x: Tensor) -> Tensor:
    """[M, N, D] -> the same."""
    normed = layer_norm(x, x.shape[-1:], eps=modules[0].eps)
    return torch.addcmul(_stack(modules, "bias").unsqueeze(1), normed, _stack(modules, "weight").unsqueeze(1))
