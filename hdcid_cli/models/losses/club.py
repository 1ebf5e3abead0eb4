"""CLUB, an upper bound of mutual information (Cheng et al. 2020; paper eq. 5, 6, 12).

A network models q(y | x) as a diagonal Gaussian; it is fitted by likelihood, and
the bound that it gives is then minimised by the encoders that made x and y.
"""

import torch
from torch import Tensor, nn


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

    def log_likelihood(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean over samples of 0.5 sum_d(-(mu - y)^2 / exp(logvar) - logvar)."""
        mu, logvar = self(x)
        return 0.5 * (-((mu - y) ** 2) / logvar.exp() - logvar).sum(dim=-1).mean()

    def sampled_bound(self, x: Tensor, y: Tensor, permutation: Tensor) -> Tensor:
        """The published bound: each clip against itself and one other, `permutation` [B] says which."""
        mu, logvar = self(x)
        variance = logvar.mean(dim=1).exp()  # [B, S]
        positive = -((mu - y) ** 2).mean(dim=1) / variance
        negative = -((mu - y[permutation]) ** 2).mean(dim=1) / variance
        return (positive.sum(dim=-1) - negative.sum(dim=-1)).mean() / 2

    def exact_bound(self, x: Tensor, y: Tensor) -> Tensor:
        """Eq. 12: each clip's log-likelihood less its mean over all clips j of the batch.

        The constant terms cancel. The squared distances of all pairs come from matrix
        products, so nothing of size [B, B, T, S] is made.
        """
        mu, logvar = self(x)
        precision = (-logvar).exp()
        own = (((mu - y) ** 2) * precision).sum(dim=-1).mean(dim=1)  # [B]
        # mean_j (mu_i - y_j)^2 = mu_i^2 - 2 mu_i mean(y) + mean(y^2), element by element.
        all_pairs = mu**2 - 2 * mu * y.mean(dim=0) + (y**2).mean(dim=0)
        others = (all_pairs * precision).sum(dim=-1).mean(dim=1)
        return 0.5 * (others - own).mean()


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
