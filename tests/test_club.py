"""CLUB networks of one shape compute together what each computes alone."""

import pytest
import torch

from hdcid_cli.core.draws import permutations
from hdcid_cli.training.losses.club import Club, Sample, exact_bounds, grouped, log_likelihood, sampled_bounds


def alone(club, x, y, valid, permutation):
    """Likelihood and bounds by the equations, clip by clip, of the segments that are valid."""
    mu, logvar = club(x)
    there = torch.ones(x.shape[:2], dtype=torch.bool) if valid is None else valid
    likelihood = (0.5 * (-((mu - y) ** 2) / logvar.exp() - logvar).sum(-1))[there].mean()
    sampled, exact = 0.0, 0.0
    for i in range(len(x)):
        j, mine = int(permutation[i]), there[i]
        variance = logvar[i][mine].mean(0).exp()
        both = mine & there[j]
        positive = -((mu[i] - y[i]) ** 2)[mine].mean(0) / variance
        negative = -((mu[i][both] - y[j][both]) ** 2).mean(0) / variance
        sampled += (positive.sum() - negative.sum()) / (2 * len(x))
        for t in torch.nonzero(mine).flatten().tolist():
            others = torch.stack([(mu[i, t] - y[k, t]) ** 2 for k in range(len(x)) if there[k, t]]).mean(0)
            gap = (others - (mu[i, t] - y[i, t]) ** 2) / logvar[i, t].exp()
            exact += 0.5 * gap.sum() / (mine.sum() * len(x))
    return likelihood, sampled, exact


@pytest.mark.parametrize("masked", [False, True])
def test_networks_together_say_what_each_says_alone_with_the_same_gradient(masked):
    torch.manual_seed(0)
    widths = (3, 4, 3, 4, 3)  # two groups, their networks in between each other
    clubs = [Club(6, width, hidden=5).double() for width in widths]
    valid = torch.arange(4) < torch.tensor([4, 2, 3, 1]).unsqueeze(1) if masked else None
    samples = [Sample(torch.randn(4, 4, 6).double(), torch.randn(4, 4, width).double(), valid) for width in widths]
    drawn = permutations([4] * 5, torch.Generator().manual_seed(0), torch.device("cpu"))
    values = [alone(club, *sample, order) for club, sample, order in zip(clubs, samples, drawn)]
    parameters = [p for club in clubs for p in club.parameters()]
    together = (
        log_likelihood(grouped(clubs, samples)),
        sampled_bounds(clubs, samples, drawn).sum(),
        exact_bounds(clubs, samples).sum(),
    )
    for value, single in zip(together, zip(*values), strict=True):
        torch.testing.assert_close(value, sum(single), rtol=1e-12, atol=1e-12)
        one = torch.autograd.grad(value, parameters, retain_graph=True)
        other = torch.autograd.grad(sum(single), parameters, retain_graph=True)
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_clips_of_other_lengths_are_another_group():
    torch.manual_seed(0)
    clubs = [Club(6, 3, hidden=5).double() for _ in range(2)]
    samples = [Sample(torch.randn(4, steps, 6).double(), torch.randn(4, steps, 3).double()) for steps in (2, 5)]
    expected = sum(club.log_likelihood(*sample) for club, sample in zip(clubs, samples))
    torch.testing.assert_close(log_likelihood(grouped(clubs, samples)), expected, rtol=1e-12, atol=0)


def test_permutations_follow_the_generator_one_after_the_other():
    drawn = permutations([7, 4], torch.Generator().manual_seed(5), torch.device("cpu"))
    generator = torch.Generator().manual_seed(5)
    for permutation, size in zip(drawn, (7, 4), strict=True):
        assert torch.equal(permutation, torch.randperm(size, generator=generator))
