"""Cross-modal contrastive predictive coding (Oord et al. 2018; Xia et al. 2023; paper eq. 7, 13)."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from hdcid_cli.core.draws import choice
from hdcid_cli.models.hdcid import Layer, LayerOutput
from hdcid_cli.models.segments import Valid, at_length, common_length, masked_mean, valid_in
from hdcid_cli.models.together import linears, lstms
from hdcid_cli.training.losses.alignment import Alignment, Measured, measured
from hdcid_cli.training.settings import ObjectiveSettings


class CPC(Alignment):
    """From what modality m did until step t, tell which clip's step t + r of modality n is the right one.

    Args:
        modalities: names of the modalities.
        dim: width D of the general features.
        context: width of the LSTM's context.
        context_layers: layers of the LSTM: 2 as published, 1 in the paper.
        horizon: R, how many future steps are predicted.
        own_weight: weight of the pairs m = n (0.1); pairs m != n weigh 1.
        scored: "all" steps of a clip, or one drawn at "random" for each batch (published).
    """

    def __init__(
        self,
        modalities,
        dim: int = 256,
        context: int = 256,
        context_layers: int = 2,
        horizon: int = 1,
        own_weight: float = 0.1,
        scored: str = "all",
    ):
        super().__init__()
        self.horizon, self.own_weight, self.scored = horizon, own_weight, scored
        self.context = nn.ModuleDict({m: nn.LSTM(dim, context, context_layers, batch_first=True) for m in modalities})
        self.predictors = nn.ModuleDict(
            {m: nn.ModuleList(nn.Linear(context, dim) for _ in range(horizon)) for m in modalities}
        )

    @classmethod
    def of(cls, settings: ObjectiveSettings, layer: Layer) -> Self:
        dim = layer.config.dim
        modalities, layers, horizon = layer.config.modalities, settings.cpc_layers, settings.cpc_horizon
        return cls(modalities, dim, dim, layers, horizon, scored=settings.cpc_steps)

    def forward(self, out: LayerOutput, layer: Layer, generator: torch.Generator) -> Measured:
        steps = list(self.steps(common_length(out.general)))
        if self.scored == "random":
            steps = [steps[choice(len(steps), generator, "CPC scores a step that is drawn (--cpc-steps random)")]]
        loss, accuracy = self.score(out.general, steps, out.valid)
        return loss, measured("cpc_accuracy", accuracy, out)

    @classmethod
    def of_layers(cls, alignments: Sequence[Self], outs: Sequence[LayerOutput]) -> list[Measured] | None:
        if any(each.scored == "random" for each in alignments):
            return None
        steps = list(alignments[0].steps(common_length(outs[0].general)))
        general, valid = [out.general for out in outs], [out.valid for out in outs]
        scores = score_layers(alignments, general, steps, valid)
        return [(loss, measured("cpc_accuracy", right, out)) for loss, right, out in zip(*scores, outs, strict=True)]

    def steps(self, time: int) -> range:
        """The steps t that may be drawn: [1, T - R); the last usable one where T is too short for that."""
        return (
            range(1, time - self.horizon)
            if time - self.horizon > 1
            else range(max(0, time - 1 - self.horizon), max(1, time - self.horizon))
        )

    def score(self, general: dict[str, Tensor], steps: list[int], valid: Valid = None) -> tuple[Tensor, Tensor]:
        """Loss and accuracy of the given steps t.

        Args:
            general: z_m [B, T_m, D]; modalities of different T are resampled to the longest.
            steps: which t to score, one after the other; one drawn at random is the published choice, all of
                `self.steps(T)` uses the whole clip for the price of the same LSTM pass.
            valid: a clip takes part in step t, as question and as answer, if m is valid at t and n at t + r.

        Returns:
            The weighted sum over ordered pairs of the mean InfoNCE, and the share of clips
            whose right partner scored highest over the pairs m != n.
        """
        loss, right = score_layers([self], [general], steps, [valid])
        return loss[0], right[0]


def score_layers(
    layers: Sequence[CPC], generals: Sequence[dict[str, Tensor]], steps: list[int], valids: Sequence[Valid]
) -> tuple[Tensor, Tensor]:
    """`CPC.score` of K layers with features of the same shapes: losses and accuracies, [K] each."""
    alike, names = layers[0], list(generals[0])
    time, count = common_length(generals[0]), (len(layers), len(names))
    ahead = min(alike.horizon, time - 1)  # T = 1: a step tells itself, which is InfoNCE
    first, last = steps[0], steps[-1]
    if len(steps) != last - first + 1:
        raise ValueError(f"steps should follow one another, not {steps}")
    z = torch.stack([at_length(general[m], time) for general in generals for m in names])  # [K M, B, T, D]
    there = None
    if valids[0] is not None:
        there = torch.stack([valid_in(valid, time, m) for valid in valids for m in names]).unflatten(0, count)
    context = lstms([layer.context[m] for layer in layers for m in names], z[:, :, : last + 1])[:, :, first:]
    losses, rights = [], []
    for r in range(alike.horizon):
        later = slice(first + min(r + 1, ahead), last + min(r + 1, ahead) + 1)
        predicted = linears([layer.predictors[m][r] for layer in layers for m in names], context.flatten(1, 2))
        predicted = predicted.view(*count, *context.shape[1:3], -1)  # [K, M, B, S, D]
        # Scores of all pairs in one product for each layer and step.
        truth = z.unflatten(0, count)[:, :, :, later].permute(0, 3, 4, 1, 2).flatten(3).flatten(0, 1)  # [K S, D, N B]
        asked = predicted.permute(0, 3, 1, 2, 4).flatten(2, 3).flatten(0, 1)  # [K S, M B, D]
        scores = (asked @ truth).view(len(layers), len(steps), *[len(names), z.shape[1]] * 2)  # [K, S, M, B, N, B]
        part = None
        if there is not None:
            part = there[:, :, None, :, first : last + 1] & there[:, None, :, :, later]  # [K, M, N, B, S]
            part = part.transpose(3, 4)
        # As published: which prediction belongs to this truth; from [K, M, N, S, B (truth), B (prediction)].
        value, right = _info_nce(scores.permute(0, 2, 4, 1, 5, 3), part)
        losses.append(value)
        rights.append(right)
    loss, right = (sum(values[1:], values[0]) for values in (losses, rights))  # [K, M, N]
    own_loss, own_right = (x.diagonal(dim1=1, dim2=2).sum(dim=1) for x in (loss, right))
    others = len(names) * (len(names) - 1) * alike.horizon
    loss = (loss.sum(dim=(1, 2)) - own_loss + alike.own_weight * own_loss) / alike.horizon
    return loss, (right.sum(dim=(1, 2)) - own_right) / max(1, others)


def _info_nce(scores: Tensor, part: Tensor | None) -> tuple[Tensor, Tensor]:
    """-log softmax along the last axis at the diagonal of [..., S, B, B], and how often that is the largest [...].

    Rows and columns of clips that take no part [..., S, B] are left out.
    """
    target = torch.arange(scores.shape[-1], device=scores.device).expand(scores.shape[:-1])
    if part is not None:
        # A row that is left out keeps its own column, so that no row is empty; it does not count below.
        own = torch.eye(scores.shape[-1], dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(~(part.unsqueeze(-2) | own), -torch.inf)
    losses = scores.logsumexp(dim=-1) - scores.diagonal(dim1=-2, dim2=-1)
    right = (scores.detach().argmax(dim=-1) == target).to(scores.dtype)
    keep = scores.ndim - 3
    return masked_mean(losses, part, keep), masked_mean(right, part, keep)
