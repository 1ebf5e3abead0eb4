"""CLUB, an upper bound of mutual information (Cheng et al. 2020; paper eq. 5, 6, 12).

A network models q(y | x) as a diagonal Gaussian; it is fitted by likelihood, and
the bound that it gives is then minimised by the encoders that made x and y.
"""

import torch
from torch import Tensor, nn

from hdcid_cli.models.segments import masked_mean, time_mean


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
        mu, logvar = self(x)
        return masked_mean(0.5 * (-((mu - y) ** 2) / logvar.exp() - logvar).sum(dim=-1), valid)

    def sampled_bound(self, x: Tensor, y: Tensor, permutation: Tensor, valid: Tensor | None = None) -> Tensor:
        """The published bound: each clip against itself and one other, `permutation` [B] says which."""
        mu, logvar = self(x)
        variance = time_mean(logvar, valid).exp()  # [B, S]
        both = None if valid is None else valid & valid[permutation]
        positive = -time_mean((mu - y) ** 2, valid) / variance
        negative = -time_mean((mu - y[permutation]) ** 2, both) / variance
        return (positive.sum(dim=-1) - negative.sum(dim=-1)).mean() / 2

    def exact_bound(self, x: Tensor, y: Tensor, valid: Tensor | None = None) -> Tensor:
        """Eq. 12: each clip's log-likelihood less its mean over all clips j of the batch.

        The constant terms cancel. The mean over all pairs comes from two moments of y,
        so nothing of size [B, B, T, S] is made.
        """
        mu, logvar = self(x)
        precision = (-logvar).exp()
        # mean_j (mu_i - y_j)^2 = mu_i^2 - 2 mu_i mean(y) + mean(y^2), element by element; [T, S] each.
        first, second = _mean_over_clips(y, valid), _mean_over_clips(y**2, valid)
        own, others = (mu - y) ** 2, mu**2 - 2 * mu * first + second
        return 0.5 * time_mean((others - own) * precision, valid).sum(dim=-1).mean()


def _mean_over_clips(y: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of y [B, T, S] over the clips that are valid at each step -> [T, S]."""
    return time_mean(y.transpose(0, 1), None if valid is None else valid.T)


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


def random_permutation(batch: int, generator: torch.Generator) -> Tensor:
    """A permutation [B] from a CPU generator, so that it is the same on every device."""
    return torch.randperm(batch, generator=generator)
