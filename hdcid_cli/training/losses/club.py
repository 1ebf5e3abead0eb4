"""CLUB, an upper bound of mutual information (Cheng et al. 2020; paper eq. 5, 6, 12).

A network models q(y | x) as a diagonal Gaussian; it is fitted by likelihood, and
the bound that it gives is then minimised by the encoders that made x and y.

Several networks of one shape compute together, so that a GPU gets a few large products instead of many small ones:
`grouped` puts together what can be, with an axis G in front.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Sample(NamedTuple):
    """What one network is asked about: x [B, T, D], y [B, T, S], and which segments are valid [B, T] (None: all)."""

    x: Tensor
    y: Tensor
    valid: Tensor | None = None


class Club(nn.Module):
    """q(y | x): two MLPs of four Linear layers for mean and log-variance.

    x is the quantized general feature [B, T, D], y the specific one [B, T, S].
    """

    def __init__(self, x_dim: int, y_dim: int, hidden: int = 128):
        super().__init__()
        self.mu = _mlp(x_dim, hidden, y_dim)
        self.logvar = _mlp(x_dim, hidden, y_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.mu(x), self.logvar(x).tanh()

    def log_likelihood(self, x: Tensor, y: Tensor, valid: Tensor | None = None) -> Tensor:
        """Mean over samples of 0.5 sum_d(-(mu - y)^2 / exp(logvar) - logvar); `valid` [B, T] says which segments are
        samples.
        """
        return log_likelihood(grouped([self], [Sample(x, y, valid)]))

    def sampled_bound(self, x: Tensor, y: Tensor, permutation: Tensor, valid: Tensor | None = None) -> Tensor:
        """The published bound: each clip against itself and one other, `permutation` [B] says which."""
        return sampled_bound([self], [Sample(x, y, valid)], [permutation])

    def exact_bound(self, x: Tensor, y: Tensor, valid: Tensor | None = None) -> Tensor:
        """Eq. 12: each clip's log-likelihood less its mean over all clips j of the batch."""
        return exact_bound([self], [Sample(x, y, valid)])


class ClubGroup(NamedTuple):
    """Networks of one shape and their samples.

    networks: each one's mu and logvar, one after the other.
    x: what they are asked, for each of these [2 G, B T, D].
    y: [G, B, T, S].
    places: the places of the networks among all that were asked [G].
    """

    networks: list[nn.Sequential]
    x: Tensor
    y: Tensor
    valid: Tensor | None
    places: list[int]

    def answers(self) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of y [G, B, T, S]."""
        made = _together(self.networks, self.x).unflatten(1, self.y.shape[1:3]).unflatten(0, (-1, 2))
        return made[:, 0], made[:, 1].tanh()


def grouped(clubs: Iterable[Club], samples: Iterable[Sample]) -> list[ClubGroup]:
    """The networks and their samples, those of one shape together."""
    alike: dict[tuple, list[int]] = {}
    clubs, samples = list(clubs), list(samples)
    for place, (club, sample) in enumerate(zip(clubs, samples, strict=True)):
        shape = (*(tuple(p.shape) for p in club.mu.parameters()), sample.x.shape[:2], sample.valid is None)
        alike.setdefault(shape, []).append(place)
    groups = []
    for places in alike.values():
        x = torch.stack([samples[place].x for place in places for _ in range(2)]).flatten(1, 2)
        y = torch.stack([samples[place].y for place in places])
        valid = None
        if samples[places[0]].valid is not None:
            valid = torch.stack([samples[place].valid for place in places])
        networks = [network for place in places for network in (clubs[place].mu, clubs[place].logvar)]
        groups.append(ClubGroup(networks, x, y, valid, places))
    return groups


def log_likelihood(groups: Iterable[ClubGroup]) -> Tensor:
    """Sum of the networks' log-likelihoods, see `Club.log_likelihood`."""
    total = 0.0
    for group in groups:
        mu, logvar = group.answers()
        value = ((mu - group.y) ** 2 * (-logvar).exp() + logvar).sum(dim=-1)  # [G, B, T]
        valid = group.valid
        total = total + -0.5 * _mean(value.flatten(1), valid if valid is None else valid.flatten(1), 1).sum()
    return total


def sampled_bound(clubs: Iterable[Club], samples: Iterable[Sample], permutations: Sequence[Tensor]) -> Tensor:
    """Sum of the networks' published bounds, `permutations` [B] of each; see `Club.sampled_bound`."""
    total = 0.0
    for group in grouped(clubs, samples):
        (mu, logvar), y, valid, places = group.answers(), group.y, group.valid, group.places
        other = torch.stack([permutations[place] for place in places])  # [G, B]
        row = torch.arange(len(places), device=y.device).unsqueeze(1)  # [G, 1]
        variance = _mean(logvar, valid, 2).exp()  # [G, B, S]
        both = None if valid is None else valid & valid[row, other]
        positive = -_mean((mu - y) ** 2, valid, 2) / variance
        negative = -_mean((mu - y[row, other]) ** 2, both, 2) / variance
        total = total + (positive.sum(dim=-1) - negative.sum(dim=-1)).mean(dim=1).sum() / 2
    return total


def exact_bound(clubs: Iterable[Club], samples: Iterable[Sample]) -> Tensor:
    """Sum of the networks' bounds of eq. 12, see `Club.exact_bound`.

    The constant terms cancel. The mean over all pairs comes from two moments of y,
    so nothing of size [B, B, T, S] is made.
    """
    total = 0.0
    for group in grouped(clubs, samples):
        (mu, logvar), y, valid = group.answers(), group.y, group.valid
        precision = (-logvar).exp()
        # mean_j (mu_i - y_j)^2 = mu_i^2 - 2 mu_i mean(y) + mean(y^2), element by element; [G, 1, T, S] each.
        first, second = _mean(y, valid, 1).unsqueeze(1), _mean(y**2, valid, 1).unsqueeze(1)
        own, others = (mu - y) ** 2, mu**2 - 2 * mu * first + second
        total = total + 0.5 * _mean((others - own) * precision, valid, 2).sum(dim=-1).mean(dim=1).sum()
    return total


def _mean(x: Tensor, valid: Tensor | None, dim: int) -> Tensor:
    """Mean of x [G, ...] along an axis, over what is valid; `valid` has the first axes of x, as many as it has."""
    if valid is None:
        return x.mean(dim=dim)
    valid = valid.reshape(*valid.shape, *[1] * (x.ndim - valid.ndim))
    return torch.where(valid, x, 0).sum(dim=dim) / valid.sum(dim=dim).clamp_min(1)


def _mlp(x_dim: int, hidden: int, y_dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(x_dim, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, y_dim),
    )


def _together(networks: list[nn.Sequential], x: Tensor) -> Tensor:
    """Every network of `_mlp` on its own x: [G, N, D] -> [G, N, S].

    Weights come first in the products, so that their gradient lies in memory as they do and need not be copied.
    """
    x = x.transpose(1, 2)
    for same in zip(*networks, strict=True):
        if isinstance(same[0], nn.Linear):
            weight, bias = torch.stack([each.weight for each in same]), torch.stack([each.bias for each in same])
            x = torch.baddbmm(bias.unsqueeze(2), weight, x)
        else:
            x = same[0](x)
    return x.transpose(1, 2).contiguous()
