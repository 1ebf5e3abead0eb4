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
from torch.nn.functional import mse_loss

from hdcid_cli.models.together import joined


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
        return sampled_bounds([self], [Sample(x, y, valid)], [permutation])[0]

    def exact_bound(self, x: Tensor, y: Tensor, valid: Tensor | None = None) -> Tensor:
        """Eq. 12: each clip's log-likelihood less its mean over all clips j of the batch."""
        return exact_bounds([self], [Sample(x, y, valid)])[0]


class ClubGroup(NamedTuple):
    """Networks that compute together and their samples; S is the widest y, and others are filled up with zeros.

    clubs: G networks.
    x: what each is asked [G, D, B T].
    y: [G, S, B, T].
    valid: [G, 1, B, T], or None.
    places: the places of the networks among all that were asked [G].
    """

    clubs: list[Club]
    x: Tensor
    y: Tensor
    valid: Tensor | None
    places: list[int]

    def answers(self) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of y [G, S, B, T]; both are zero where y was filled up, so nothing there counts."""
        mu, logvar = _together(self.clubs, self.x).unflatten(-1, self.y.shape[2:]).unbind(1)
        return mu, logvar.tanh()


def grouped(clubs: Iterable[Club], samples: Iterable[Sample]) -> list[ClubGroup]:
    """The networks and their samples, those asked about as many segments together."""
    alike: dict[tuple, list[int]] = {}
    clubs, samples = list(clubs), list(samples)
    for place, (club, sample) in enumerate(zip(clubs, samples, strict=True)):
        shape = (club.mu[0].weight.shape, sample.x.shape[:2], sample.valid is None)
        alike.setdefault(shape, []).append(place)
    groups = []
    for places in alike.values():
        mine = [samples[place] for place in places]
        x = torch.stack([sample.x.flatten(0, 1).T for sample in mine])
        y = _filled([sample.y.flatten(0, 1).T for sample in mine]).unflatten(-1, mine[0].y.shape[:2])
        valid = None if mine[0].valid is None else torch.stack([sample.valid for sample in mine]).unsqueeze(1)
        groups.append(ClubGroup([clubs[place] for place in places], x, y, valid, places))
    return groups


def log_likelihood(groups: Iterable[ClubGroup]) -> Tensor:
    """Sum of the networks' log-likelihoods, see `Club.log_likelihood`."""
    values = []
    for group in groups:
        mu, logvar = group.answers()
        value = (_squares(mu, group.y) * (-logvar).exp() + logvar).sum(dim=1, keepdim=True)  # [G, 1, B, T]
        values.append(-0.5 * _mean(value, group.valid, (2, 3)).sum())
    return sum(values[1:], values[0])


def sampled_bounds(clubs: Iterable[Club], samples: Iterable[Sample], permutations: Sequence[Tensor]) -> Tensor:
    """Each network's published bound, `permutations` [B] of each; see `Club.sampled_bound`."""
    found: dict[int, Tensor] = {}
    for group in grouped(clubs, samples):
        (mu, logvar), y, valid, places = group.answers(), group.y, group.valid, group.places
        other = torch.stack([permutations[place] for place in places])  # [G, B]
        row = torch.arange(len(places), device=y.device).unsqueeze(1)  # [G, 1]
        both = None if valid is None else valid & valid[row, :, other].transpose(1, 2)
        positive = _mean(_squares(mu, y), valid, 3)  # [G, S, B]
        negative = _mean(_squares(mu, y[row, :, other].transpose(1, 2)), both, 3)
        gap = (negative - positive) / _mean(logvar, valid, 3).exp()
        found |= zip(places, (gap.sum(dim=1).mean(dim=1) / 2).unbind())
    return torch.stack([found[place] for place in range(len(found))])


def exact_bounds(clubs: Iterable[Club], samples: Iterable[Sample]) -> Tensor:
    """Each network's bound of eq. 12, see `Club.exact_bound`.

    The constant terms cancel. The mean over all pairs comes from two moments of y,
    so nothing of size [B, B, T, S] is made.
    """
    found: dict[int, Tensor] = {}
    for group in grouped(clubs, samples):
        (mu, logvar), y, valid = group.answers(), group.y, group.valid
        # mean_j (mu_i - y_j)^2 = mu_i^2 - 2 mu_i mean(y) + mean(y^2), element by element; [G, S, 1, T] each.
        first, second = _mean(y, valid, 2).unsqueeze(2), _mean(y**2, valid, 2).unsqueeze(2)
        gap = (mu**2 - 2 * mu * first + second - _squares(mu, y)) * (-logvar).exp()
        found |= zip(group.places, (_mean(gap, valid, 3).sum(dim=1).mean(dim=1) / 2).unbind())
    return torch.stack([found[place] for place in range(len(found))])


def _squares(x: Tensor, y: Tensor) -> Tensor:
    return mse_loss(x, y, reduction="none")


def _mean(x: Tensor, valid: Tensor | None, dim: int | tuple[int, ...]) -> Tensor:
    """Mean of x [G, ..., B, T] along axes, over what is valid [G, 1, B, T]."""
    if valid is None:
        return x.mean(dim=dim)
    return torch.where(valid, x, 0).sum(dim=dim) / valid.sum(dim=dim).clamp_min(1)


def _filled(parts: Sequence[Tensor]) -> Tensor:
    """Tensors [S_g, N] one behind the other, filled up with zeros: [G, S, N].

    As `joined` does it, which would first copy each of them by itself, as they do not lie in memory as they are read.
    """
    longest = max(map(len, parts))
    zeros = parts[0].new_zeros(longest - min(map(len, parts)), parts[0].shape[1])
    return torch.cat([each for x in parts for each in (x, zeros[: longest - len(x)])]).unflatten(0, (-1, longest))


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


def _together(clubs: Sequence[Club], x: Tensor) -> Tensor:
    """Both networks of every club on its own x: [G, D, N] -> [G, 2, S, N].

    Weights come first in the products, so that their gradient lies in memory as they do.
    """
    networks = [network for club in clubs for network in (club.mu, club.logvar)]
    layers = [same for same in zip(*networks, strict=True) if isinstance(same[0], nn.Linear)]
    kinds = joined([[getattr(each, name) for each in same] for same in layers for name in ("weight", "bias")])
    # Both read the same x in the first product: [G, 2 H, D] times [G, D, N].
    weight, bias = (kind.unflatten(0, (-1, 2)).flatten(1, 2) for kind in kinds[:2])
    x = torch.baddbmm(bias.unsqueeze(2), weight, x).unflatten(1, (2, -1)).flatten(0, 1)
    for weight, bias in zip(kinds[2::2], kinds[3::2], strict=True):  # [2 G, O, I] and [2 G, O]
        x = torch.baddbmm(bias.unsqueeze(2), weight, x.relu())
    return x.unflatten(0, (-1, 2))
