"""The training loop: one encoder pass a step, codebooks by MM-EMA, deeper layers after their warm-up.

A step, in order: let clips exchange seconds (`mix`); encode the batch; fit the CLUB networks to
it (five Adam steps on the detached features); all losses; gradients, clipped module by module;
Adam; MM-EMA update of the codebooks with the features of this step; revival of codes that nobody
uses.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from itertools import combinations

import torch
from torch import Tensor, nn

from hdcid_cli.core.distributed import World
from hdcid_cli.core.errors import HdcidError, InputError
from hdcid_cli.core.precision import in_float64, set_matmul_precision
from hdcid_cli.core.progress import counted, warn
from hdcid_cli.models.assembled import Model
from hdcid_cli.models.hdcid import LayerOutput
from hdcid_cli.models.segments import at_length, common_length, masked_mean, valid_in, valid_rows
from hdcid_cli.training.captured import CapturedStep, Recorder
from hdcid_cli.training.gradients import GradientSum
from hdcid_cli.training.losses.club import log_likelihood
from hdcid_cli.training.mixed import mixed_precision
from hdcid_cli.training.mixing import draw_exchange, exchange
from hdcid_cli.training.objective import Objective, current_names, everyone, gather_codes, gather_output
from hdcid_cli.training.settings import TrainSettings


class Trainer:
    """Model, losses, optimizers and random state of one run; `step` does one step.

    Args:
        steps_per_epoch: how many batches an epoch has, for the schedule.
        world: this process among those of `torchrun`.
    """

    def __init__(
        self,
        model: Model,
        objective: Objective,
        config: TrainSettings,
        steps_per_epoch: int,
        device,
        world: World | None = None,
    ):
        self.model, self.objective, self.config = model, objective, config
        if model.config.map_encoder == "bn" and world is not None and world.size > 1:
            raise InputError("--map-encoder bn normalizes over the whole batch: train it in one process.")
        self.device, self.world = torch.device(device), world or World()
        self.steps_per_epoch = max(1, steps_per_epoch)
        self.dtype = torch.float64 if config.precision == "float64" else torch.float32
        set_matmul_precision(config.precision)
        model.to(self.device, self.dtype)
        objective.to(self.device, self.dtype)
        fused = self.device.type in ("cpu", "cuda")
        self.modules = {**modules_to_clip(model), **objective.alignment_parameters()}
        parameters = [p for group in self.modules.values() for p in group]
        self.optimizer = torch.optim.Adam(parameters, lr=config.lr, fused=fused)
        clubs = objective.club_parameters()
        self.club_optimizer = torch.optim.Adam(clubs, lr=config.club_lr, fused=fused) if clubs else None
        shared = [p for group in objective.alignment_parameters().values() for p in group]
        self._gradients = GradientSum(model.parameters(), shared, self.world)
        self._encoders = [_children(layer, decode=False) for layer in model.layers]
        self._decoders = [_children(layer, decode=True) for layer in model.layers]
        self.generator = torch.Generator().manual_seed(config.seed)
        self.step_number = 0
        self.started = 0  # layers that have joined
        self.captured: CapturedStep | None = None

    def active_layers(self, epoch: int) -> int:
        """How many layers take part in an epoch (counted from 0)."""
        levels = len(self.model.layers)
        return levels if self.config.warmup < 1 else min(levels, 1 + epoch // self.config.warmup)

    def learning_rate(self, step: int) -> float:
        """Rate at a step (counted from 0)."""
        config, epoch = self.config, step // self.steps_per_epoch
        if config.schedule == "steps":
            return config.lr * 0.5 ** sum(epoch >= milestone for milestone in config.milestones)
        done = min(1.0, step / (config.epochs * self.steps_per_epoch))
        if config.schedule == "cosine":
            return config.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
        if config.schedule == "trapezoid":
            return config.lr * (0.01 + 0.99 * min(1.0, (1 - done) / 0.3))
        return config.lr

    def step(
        self, features: dict[str, Tensor], epoch: int, lengths: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """One training step on this rank's part of the batch; returns losses and metrics as tensors.

        Args:
            lengths: valid segments of every clip [B], on the CPU; all segments count if None.
        """
        active = self.active_layers(epoch)
        self.model.train()
        features = self._mixed(features, lengths)
        if self.started < active:
            self.start_layers(features, active, lengths)
        self._set_rate()
        if self.captured is None or lengths is not None:
            measured = self.compute(features, active, lengths)
        else:
            measured = self.captured(features, active)
        self.step_number += 1
        return measured

    def compute(
        self, features: dict[str, Tensor], active: int, lengths: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """All of a step that the device does; it can be recorded where no clip is shorter than others."""
        with self._mixed_precision(self._encoders[:active]):
            local = self.model(features, active, lengths)
        outputs = [gather_output(out, self.world) for out in local]
        self._fit_club(local, outputs)
        with self._mixed_precision(self._decoders[:active]):
            rebuilt = [layer.decode(out) for layer, out in zip(self.model.layers, local)]
        self.objective.observe(self.model.layers, local, outputs, self.world)
        loss, terms = self.objective(self.model, local, outputs, rebuilt, self.generator, self.world)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._share(terms)
        for name, parameters in self.modules.items():
            learning = [p for p in parameters if p.grad is not None]
            if learning:
                foreach = self.device.type != "mps"  # which has no such operators
                terms[f"gradient/{name}"] = nn.utils.clip_grad_norm_(learning, self.config.clip, foreach=foreach)
        self.optimizer.step()
        self.objective.follow(self.model.layers[:active])
        self._update_codebooks(outputs)
        # What the processes have summed is in the terms.
        total = loss.detach() if self.world.size == 1 else self.objective.total(terms)
        return {"loss": total, **terms, **_code_metrics(self.model.layers, outputs)}

    def _mixed(self, features: dict[str, Tensor], lengths: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """This rank's clips, having exchanged seconds as they would have in one process."""
        streams = {name: x for name, x in features.items() if name != "text"}
        if not self.config.mix or not streams:
            return features
        clips = len(next(iter(streams.values())))
        drawn = draw_exchange(clips * self.world.size, common_length(streams), self.config.mix, self.generator)
        return exchange(features, drawn[clips * self.world.rank :][:clips], lengths)

    def capture(self, recorder: Recorder, refused: Callable[[str], None]) -> None:
        """Record steps from here on and play them; `refused` is called with the reason if that cannot be."""
        self.captured = CapturedStep(self.compute, self.device, recorder, refused)
        self._settle_optimizers()

    def _settle_optimizers(self) -> None:
        """What a recorded step reads must be there as tensors."""
        for optimizer in filter(None, (self.optimizer, self.club_optimizer)):
            for group in optimizer.param_groups:
                group["capturable"] = self.captured is not None
        for group in self.optimizer.param_groups:
            rate = float(group["lr"])
            group["lr"] = torch.tensor(rate, dtype=torch.float32, device=self.device) if self.captured else rate

    def _set_rate(self) -> None:
        rate = self.learning_rate(self.step_number)
        for group in self.optimizer.param_groups:
            if self.captured is None:
                group["lr"] = rate
            else:
                group["lr"].fill_(rate)

    @torch.no_grad()
    def start_layers(self, features: dict[str, Tensor], active: int, lengths: dict[str, Tensor] | None) -> None:
        """Fit what layers that join now take from the batch: the scale of their inputs, and codes on features that they
        see.
        """
        for number in range(self.started, active):
            layer = self.model.layers[number]
            if layer.standardize:
                out = self.model(features, number, lengths)[-1]
                summary, valid = everyone(out.summary, self.world), out.valid and everyone(out.valid, self.world)
                for name, standardize in layer.standardize.items():
                    # Rarely active channels would come out huge, and rebuilding them would drown everything else.
                    standardize.fit(valid_rows(summary[name], valid and valid[name]), floor=1.0)
            if self.config.codebook_start == "data":
                out = self.model(features, number + 1, lengths)[-1]
                valid = out.valid and everyone(out.valid, self.world)
                layer.quantizer.start(everyone(out.general, self.world), self.generator, valid)
        self.started = active
        self._freeze_unread_summaries()

    def _freeze_unread_summaries(self) -> None:
        """A summary network that no layer reads yet keeps its random weights.

        Only the CLUB bound would train it, and CLUB is content with a summary that says nothing: the next
        layer would then join and find nothing. (With the published gradient of CLUB it is trained, as published.)
        """
        if self.objective.config.club_gradient == "specific":
            for number, layer in enumerate(self.model.layers):
                for specific in layer.specific.values():
                    specific.summary.requires_grad_(number + 1 < self.started)

    def _fit_club(self, local: list[LayerOutput], outputs: list[LayerOutput]) -> None:
        """Fit the CLUB networks to this batch.

        The published loop makes a pass of the encoder, with an update of the codebook, for each
        of these steps. With the features from one pass, `codebook_updates: 6` does the same.
        """
        parameters = self.objective.club_parameters()
        for parameter in parameters:
            parameter.requires_grad_(True)
        groups = self.objective.club_groups(outputs, self.model.layers)
        for number in range(self.objective.config.club_steps):
            if self.club_optimizer is not None:
                self.club_optimizer.zero_grad(set_to_none=True)
                loss = -log_likelihood(groups)
                loss.backward()
                self.club_optimizer.step()
            if number + 1 < self.config.codebook_updates:
                self._update_codebooks(outputs)
                for layer, mine, out in zip(self.model.layers, local, outputs):
                    layer.quantize(mine)
                    if out is not mine:
                        gather_codes(mine, out, self.world)
                groups = self.objective.club_groups(outputs, self.model.layers)
        for parameter in parameters:  # the bound trains the encoders, not the networks
            parameter.requires_grad_(False)

    def _share(self, terms: dict[str, Tensor]) -> None:
        """Sum over the ranks what each has for its own clips: the model's gradients, and the reconstruction to be
        logged. The losses' own networks saw the global batch on every rank.
        """
        self._gradients.finish([value for name, value in terms.items() if name.endswith("/reconstruction")])

    @torch.no_grad()
    def _update_codebooks(self, outputs: list[LayerOutput]) -> None:
        for layer, out in zip(self.model.layers, outputs):
            quantizer, config = layer.quantizer, self.config
            quantizer.update(out.general, out.indices, out.valid, self.objective.config.mm_ema, config.decay)
            if config.revival != "none":
                persist = config.revival == "persistent"
                quantizer.revive(out.indices, self.generator, config.idle, persist, out.valid)

    def _mixed_precision(self, networks: list[list[nn.Module]]) -> AbstractContextManager:
        """Around the networks alone: losses, distances and the CLUB networks take hardly any time, and need their
        digits.
        """
        return mixed_precision(self.device, networks) if self.config.precision == "bf16" else nullcontext()

    def state_dict(self) -> dict:
        """Everything that a resumed run needs to go on bit for bit (plain tensors, numbers and lists); all ranks call
        it together. From here on they have equal numbers, should a GPU have added in another order.
        """
        kept = [*self.model.state_dict().values(), *self.objective.state_dict().values()]
        for optimizer in filter(None, (self.optimizer, self.club_optimizer)):
            kept += [
                value for values in optimizer.state.values() for value in values.values() if torch.is_tensor(value)
            ]
        self.world.agree_(kept)
        return {
            "model": self.model.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": _plain(self.optimizer.state_dict()),
            "club_optimizer": self.club_optimizer.state_dict() if self.club_optimizer else None,
            "generator": self.generator.get_state(),
            "random": self.world.collect(self._random_state()),
            "step": self.step_number,
            "started": self.started,
        }

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.objective.load_state_dict(current_names(state["objective"]))
        self.optimizer.load_state_dict(state["optimizer"])
        if self.club_optimizer:
            self.club_optimizer.load_state_dict(state["club_optimizer"])
        self.generator.set_state(state["generator"].cpu())
        self.step_number, self.started = state["step"], state["started"]
        self._settle_optimizers()
        self._freeze_unread_summaries()
        if len(state["random"]) != self.world.size:
            warn(
                f"trained by {counted(len(state['random']), 'process')} before, by {self.world.size} now: dropout goes "
                "on from other random numbers."
            )
            torch.manual_seed(self.config.seed + 1000 * (self.world.rank + 1) + self.step_number)
            return
        random = state["random"][self.world.rank]
        torch.set_rng_state(random["cpu"].cpu())
        if "cuda" in random and self.device.type == "cuda":
            torch.cuda.set_rng_state(random["cuda"].cpu(), self.device)

    def _random_state(self) -> dict[str, Tensor]:
        """State of the generators that dropout draws from, which differ from rank to rank."""
        state = {"cpu": torch.get_rng_state()}
        return {**state, "cuda": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else state


def _plain(state: dict) -> dict:
    """An optimizer's state with numbers for its settings, as where no step is recorded."""
    groups = [{**group, "lr": float(group["lr"]), "capturable": False} for group in state["param_groups"]]
    return {**state, "param_groups": groups}


def _children(layer: nn.Module, decode: bool) -> list[nn.Module]:
    """A layer's encoders, or what decodes; the quantizer, which needs its digits, is neither."""
    return [
        child
        for name, child in layer.named_children()
        if name != "quantizer" and (name in ("decoder", "narrow")) == decode
    ]


def modules_to_clip(model: Model) -> dict[str, list[nn.Parameter]]:
    """The model's published modules, each clipped on its own: encoders, decoders and the text's LSTM.

    Those of the losses are every layer's CPC by itself, and so is any other alignment.
    """
    groups: dict[str, list[nn.Parameter]] = {"encoder": [], "decoder": [], "text": []}
    for name, parameter in model.named_parameters():
        decodes = ".decoder." in name or ".narrow." in name
        kind = "text" if name.startswith("text_front") else "decoder" if decodes else "encoder"
        groups[kind].append(parameter)
    return {name: parameters for name, parameters in groups.items() if parameters}


@torch.no_grad()
def _code_metrics(layers: Iterable[nn.Module], outputs: list[LayerOutput]) -> dict[str, Tensor]:
    """Codes of each modality and layer, and the share of steps at which two modalities chose the same one.

    Where channels fall into blocks, each has codes of its own, `codes/LAYER/MODALITY/BLOCK` from the second on; the
    share is the mean over blocks.
    """
    metrics = {}
    for number, (layer, out) in enumerate(zip(layers, outputs), 1):
        first = {name: index[..., : layer.quantizer.parts] for name, index in out.indices.items()}
        for name, index in first.items():
            # -1 for segments that do not count; the meter leaves them out.
            counted = index if out.valid is None else index.masked_fill(~out.valid[name].unsqueeze(-1), -1)
            for block, codes in enumerate(counted.flatten(0, 1).unbind(dim=-1), 1):
                metrics[f"codes/{number}/{name}" + (f"/{block}" if block > 1 else "")] = codes
        for one, other in combinations(first, 2):
            steps = max(first[one].shape[1], first[other].shape[1])
            same = (at_length(first[one], steps) == at_length(first[other], steps)).float().mean(dim=-1)
            metrics[f"agreement/{number}/{one}-{other}"] = masked_mean(same, valid_in(out.valid, steps, one, other))
    return metrics


class Meter:
    """Collects what steps return, on the device, and turns it into one metrics record when asked."""

    def __init__(self, codes: int):
        self.codes = codes
        self.values: dict[str, list[Tensor]] = {}

    def add(self, step: dict[str, Tensor]) -> None:
        for name, value in step.items():
            self.values.setdefault(name, []).append(value)

    def take(self) -> dict[str, float]:
        """Means since the last call; `used/k/m` and `perplexity/k/m` from the codes; clears the meter."""
        record = {}
        for name, values in self.values.items():
            if name.startswith("codes/"):
                counts = in_float64((torch.cat(values) + 1).bincount(minlength=self.codes + 1)[1:])
                share = counts / counts.sum()
                place = name.partition("/")[2]
                record[f"used/{place}"] = int((counts > 0).sum())
                record[f"perplexity/{place}"] = round(float((-(share * share.clamp_min(1e-12).log()).sum()).exp()), 2)
            else:
                record[name] = float(in_float64(torch.stack(values)).mean())
        self.values = {}
        return record


def check_finite(record: dict[str, float], step: int) -> None:
    """A loss or gradient that is not a number ends the run with a sentence that names the term."""
    bad = [name for name, value in record.items() if name.startswith(("loss", "gradient")) and not math.isfinite(value)]
    if bad:
        raise HdcidError(
            f"At step {step} {', '.join(bad)} is not finite; the last good checkpoint is kept. "
            "Try a smaller --lr, --precision float32, or look at the features with `hdcid info`."
        )
