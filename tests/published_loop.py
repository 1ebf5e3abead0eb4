"""The training loop as the published code has it, written plainly, for tests and benchmarks.

Six passes of the whole model a step: five to fit the CLUB networks, one for the losses. Every pass
quantizes and then moves the codebook. Everything in the precision of the model (float64 there).
"""

from itertools import permutations

import torch
from torch.nn.functional import cross_entropy, mse_loss

from hdcid_cli.training.losses.commitment import commitment

CLUB_STEPS = 5


class PublishedLoop:
    """Step by step what `Trainer` does with `published_hdcid.yaml`, in another way.

    Args:
        model: `HDCID` without dropout, if the two are to be compared.
        objective: whose CLUB and CPC networks are used, not its losses.
        generator: of the permutations, CPC's step and the revival; drawn in the trainer's order.
        idle: updates after which an unused code is replaced.
        clip: largest norm of a group's gradient.
    """

    def __init__(self, model, objective, generator, idle, clip=0.5, lr=4e-4, club_lr=1e-3):
        self.model, self.objective, self.generator = model, objective, generator
        self.idle, self.clip = idle, clip
        named = dict(model.named_parameters())
        decoder = [name for name in named if ".decoder." in name]
        text = [name for name in named if name.startswith("text_front.")]
        encoder = [name for name in named if name not in {*decoder, *text}]
        # The released script calls clip_grad_norm_ for Encoder, Decoder, Text_ar_lstm, CPC and CPC_2, one by one.
        self.groups = [[named[name] for name in names] for names in (encoder, decoder, text)]
        self.groups += [list(layer.alignments["cpc"].parameters()) for layer in objective.layers]
        self.adam = torch.optim.Adam([p for group in self.groups for p in group], lr=lr)
        self.club_adam = torch.optim.Adam(
            [p for layer in objective.layers for p in layer.club.parameters()], lr=club_lr
        )

    def encode(self, features):
        """One pass: features to outputs, then an update of every codebook and the revival of dead codes."""
        outputs = self.model(features)
        for layer, out in zip(self.model.layers, outputs):
            layer.quantizer.update(out.general, out.indices)
            layer.quantizer.revive(out.indices, self.generator, self.idle, persist=False)
        return outputs

    def step(self, features):
        """One step; returns the losses by name."""
        for _ in range(CLUB_STEPS):
            outputs = self.encode(features)
            self.club_adam.zero_grad()
            loss = 0.0
            for layer, out in zip(self.objective.layers, outputs):
                for name, club in layer.club.items():
                    mu, logvar = club(out.quantized[name].detach())
                    y = out.summary[name].detach()
                    loss = loss - (0.5 * (-((mu - y) ** 2) / logvar.exp() - logvar).sum(dim=-1)).mean()
            loss.backward()
            self.club_adam.step()
        outputs = self.model(features)
        total, losses = 0.0, {}
        for number, (layer, objective, out) in enumerate(zip(self.model.layers, self.objective.layers, outputs), 1):
            terms = {"commitment": sum(commitment(out.general, out.codes).values())}
            terms["club"] = sum(
                self.club_bound(objective.club[name], out.quantized[name], out.summary[name]) for name in out.general
            )
            terms["cpc"] = self.cpc(objective.alignments["cpc"], out.general)
            rebuilt = layer.decode(out)
            terms["reconstruction"] = sum(mse_loss(rebuilt[name], out.inputs[name]) for name in rebuilt)
            total = total + (1.0 if number == 1 else 0.3) * sum(terms.values())
            losses |= {f"loss/{number}/{name}": value.detach() for name, value in terms.items()}
        self.adam.zero_grad()
        total.backward()
        for group in self.groups:
            torch.nn.utils.clip_grad_norm_(group, self.clip)
        self.adam.step()
        for layer, out in zip(self.model.layers, outputs):
            layer.quantizer.update(out.general, out.indices)
            layer.quantizer.revive(out.indices, self.generator, self.idle, persist=False)
        return losses

    def club_bound(self, club, x, y):
        mu, logvar = club(x)
        permutation = torch.randperm(len(x), generator=self.generator).to(x.device)
        variance = logvar.mean(dim=1).exp()
        positive = -((mu - y) ** 2).mean(dim=1) / variance
        negative = -((mu - y[permutation]) ** 2).mean(dim=1) / variance
        return (positive.sum(dim=-1) - negative.sum(dim=-1)).mean() / 2

    def cpc(self, cpc, general):
        time = next(iter(general.values())).shape[1]
        step = 1 + int(torch.randint(time - 2, (), generator=self.generator))
        loss = 0.0
        predicted = {m: cpc.predictors[m][0](cpc.context[m](z[:, : step + 1])[0][:, -1]) for m, z in general.items()}
        for m, n in [*permutations(general, 2), *((m, m) for m in general)]:
            scores = general[n][:, step + 1] @ predicted[m].T
            target = torch.arange(len(scores), device=scores.device)
            loss = loss + (0.1 if m == n else 1.0) * cross_entropy(scores, target)
        return loss
