"""Several networks of one shape at once, so that a GPU gets a few large products instead of many small ones.

Parameters are put together in every step by one copy, and so are their gradients: these are the model's smaller
networks.
"""

import math
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
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    names = [f"{kind}_l{layer}" for layer in range(modules[0].num_layers) for kind in kinds]
    parameters = iter(joined([[getattr(module, name) for module in modules] for name in names]))
    for read, again, bias, more in zip(*[parameters] * 4, strict=True):
        inputs = _linear(x.flatten(1, 2), read, bias + more).view(*x.shape[:3], -1)
        recurrent = again.mT
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
    layers = list(zip(*(module.layers for module in modules), strict=True))
    # Apart, as in mixed precision norms alone keep their digits.
    products, norms = (iter(joined([each for same in layers for each in of(same)])) for of in (_products, _norms))
    for same in layers:
        own = [next(products) for _ in range(8)], [next(norms) for _ in range(4)]
        x = _transformer_layer(same[0], *own, x, padding)
    return x


def _products(layers: Sequence[nn.TransformerEncoderLayer]) -> list[list[Tensor]]:
    """Weights and biases of one layer's four products, each of all modules."""
    linear = [[getattr(layer, name) for layer in layers] for name in ("linear1", "linear2")]
    attention = [layer.self_attn for layer in layers]
    return [
        [each.in_proj_weight for each in attention],
        [each.in_proj_bias for each in attention],
        *_weights([each.out_proj for each in attention]),
        *_weights(linear[0]),
        *_weights(linear[1]),
    ]


def _norms(layers: Sequence[nn.TransformerEncoderLayer]) -> list[list[Tensor]]:
    """Weights and biases of its two norms."""
    return [*_weights([layer.norm1 for layer in layers]), *_weights([layer.norm2 for layer in layers])]


def _weights(modules: Sequence[nn.Module]) -> list[list[Tensor]]:
    return [[module.weight for module in modules], [module.bias for module in modules]]


def _transformer_layer(
    layer: nn.TransformerEncoderLayer, products: list[Tensor], norms: list[Tensor], x: Tensor, padding: Tensor | None
) -> Tensor:
    """One layer of all modules, each like `layer`; parameters as of `_products` and `_norms`."""
    heads, shape = layer.self_attn.num_heads, x.shape

    def drop(x: Tensor, module: nn.Dropout) -> Tensor:
        return dropout(x, module.p, module.training)

    def norm(x: Tensor, module: nn.LayerNorm, weight: Tensor, bias: Tensor) -> Tensor:
        return layer_norm(x, x.shape[-1:], eps=module.eps) * weight.unsqueeze(1) + bias.unsqueeze(1)

    x = x.flatten(1, 2)  # [M, N, D]
    # [M, B, T, 3, heads, D / heads] -> three of [M B, heads, T, D / heads]
    inside = _linear(x, *products[:2]).view(*shape[:3], 3, heads, -1)
    query, key, value = inside.permute(3, 0, 1, 4, 2, 5).flatten(1, 2)
    mask = None if padding is None else ~padding.flatten(0, 1)[:, None, None, :]
    rate = layer.self_attn.dropout if layer.self_attn.training else 0.0
    read = scaled_dot_product_attention(query, key, value, mask, rate).transpose(1, 2).reshape(x.shape)
    x = norm(x + drop(_linear(read, *products[2:4]), layer.dropout1), layer.norm1, *norms[:2])
    inner = drop(_linear(x, *products[4:6]).relu(), layer.dropout)
    return norm(x + drop(_linear(inner, *products[6:]), layer.dropout2), layer.norm2, *norms[2:]).view(shape)


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """[M, N, C], [M, O, C], [M, O] -> [M, N, O]."""
    return torch.baddbmm(bias.unsqueeze(1), x, weight.mT)


def linears(modules: Sequence[nn.Linear], x: Tensor) -> Tensor:
    """Each on its own part: [M, N, C] -> [M, N, O]."""
    return _linear(x, *joined(_weights(modules)))


def joined(tensors: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Tensors of several kinds, those of a kind one behind the other: [M, N, ...] for each kind.

    They are copied all at once, and so are their gradients.

    Args:
        tensors: those of a kind differ in their first axis alone; it is filled up with zeros to the longest, N.
    """
    shapes = [(len(same), max(map(len, same)), *same[0].shape[1:]) for same in tensors]
    missing = [shape[1:].numel() - x.numel() for same, shape in zip(tensors, map(torch.Size, shapes)) for x in same]
    zeros = tensors[0][0].new_zeros(max(missing)) if any(missing) else None
    pieces = []
    for x, gap in zip((x for same in tensors for x in same), missing, strict=True):
        pieces.append(x.flatten())
        if zeros is not None and gap:
            pieces.append(zeros[:gap])
    parts = torch.cat(pieces).split([math.prod(shape) for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
