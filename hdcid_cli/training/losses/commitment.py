"""Commitment loss (eq. 4, with the cross-modal terms of MM-EMA, Xia et al. 2023)."""

from torch import Tensor

from hdcid_cli.models.segments import Valid, at_length, masked_mean, valid_in


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
    for name, z in general.items():
        steps = z.shape[1]
        loss = 2 * beta * masked_mean((z - codes[name].detach()) ** 2, valid_in(valid, steps, name))
        others = [other for other in general if other != name] if cross else []
        for other in others:
            q = at_length(codes[other].detach(), steps)
            weight = beta / len(others) if share is None else beta * share
            loss = loss + weight * masked_mean((z - q) ** 2, valid_in(valid, steps, name, other))
        losses[name] = loss
    return losses
