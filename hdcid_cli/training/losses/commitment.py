"""Commitment loss (eq. 4, with the cross-modal terms of MM-EMA, Xia et al. 2023)."""

import torch
from torch import Tensor

from hdcid_cli.models.segments import Valid, alike, at_length, masked_mean, valid_in


def commitment(
    general: dict[str, Tensor],
    codes: dict[str, Tensor],
    beta: float = 0.25,
    valid: Valid = None,
    cross: bool = True,
    share: float | None = None,
) -> dict[str, Tensor]:
    """2 beta MSE(z_m, sg q_m) + sum over the M-1 others n of beta/(M-1) MSE(z_m, sg q_n), for every modality m.

    Args:
        general: z_m, general features [B, T_m, D] of each modality.
        codes: q_m, the codes that they were replaced by [B, T_m, D].
        cross: with the terms of the other modalities; without MM-EMA there are none.
        share: what each of them weighs, as a share of beta, if not 1/(M-1).

    Returns:
        One scalar a modality.
    """
    losses = {}
    for names, z in alike(general):
        steps = z.shape[2]
        pairs = [(name, other) for name in names for other in (name, *_others(name, general, cross))]
        q = torch.stack([at_length(codes[other].detach(), steps) for _, other in pairs]).unflatten(0, (len(names), -1))
        both = valid and torch.stack([valid_in(valid, steps, *pair) for pair in pairs]).view(q.shape[:-1])
        errors = masked_mean((z.unsqueeze(1) - q) ** 2, both, keep=2)  # [M, the own and the others]
        loss = 2 * beta * errors[:, 0]
        if (others := errors.shape[1] - 1) > 0:
            loss = loss + beta * (1 / others if share is None else share) * errors[:, 1:].sum(dim=1)
        losses |= zip(names, loss.unbind())
    return {name: losses[name] for name in general}


def _others(name: str, general: dict[str, Tensor], cross: bool) -> list[str]:
    return [other for other in general if other != name] if cross else []
