"""Commitment loss (eq. 4, with the cross-modal terms of MM-EMA, Xia et al. 2023)."""

from torch import Tensor
from torch.nn.functional import mse_loss

from hdcid_cli.models.alignment import at_length


def commitment(general: dict[str, Tensor], codes: dict[str, Tensor], beta: float = 0.25) -> dict[str, Tensor]:
    """2 beta MSE(z_m, sg q_m) + sum over the M-1 others n of beta/(M-1) MSE(z_m, sg q_n), for every modality m.

    Args:
        general: z_m, general features [B, T_m, D] of each modality.
        codes: q_m, the codes that they were replaced by [B, T_m, D].

    Returns:
        One scalar a modality.
    """
    losses = {}
    for name, z in general.items():
        others = [at_length(codes[other].detach(), z.shape[1]) for other in general if other != name]
        loss = 2 * beta * mse_loss(z, codes[name].detach())
        for q in others:
            loss = loss + beta / len(others) * mse_loss(z, q)
        losses[name] = loss
    return losses
