"""What is minimised: reconstruction, commitment, CLUB, and whatever aligns the modalities (eq. 14).

    total = layer 1 + 0.3 * (each further layer)

Each layer has its own networks (CLUB, CPC, ...), which are needed for training alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from hdcid_cli.core.distributed import World
from hdcid_cli.core.draws import permutations
from hdcid_cli.core.errors import InputError
from hdcid_cli.models.assembled import Model
from hdcid_cli.models.hdcid import Layer, LayerOutput
from hdcid_cli.models.segments import masked_mean
from hdcid_cli.training.alignments import ALIGNMENTS
from hdcid_cli.training.losses.alignment import Alignment, Measured
from hdcid_cli.training.losses.club import (
    Club,
    ClubGroup,
    Sample,
    exact_bounds,
    grouped,
    sampled_bounds,
)
from hdcid_cli.training.losses.commitment import commitment
from hdcid_cli.training.losses.pairs import OfPairs, groups_of
from hdcid_cli.training.settings import ObjectiveSettings

# Ends the names of what alignments say of codes.
OF_CODES = "_of_codes"


class LayerObjective(nn.Module):
    """The losses of one layer, with the networks that they need."""

    def __init__(self, config: ObjectiveSettings, layer: Layer):
        super().__init__()
        self.config = config
        self.club = nn.ModuleDict()
        if config.club != "none":
            for name, (x, y) in layer.disentangled_widths().items():
                self.club[name] = Club(x, y, config.club_hidden)
        names = layer.aligned_by(config.align)
        self.alignments = nn.ModuleDict({name: _alignment(name, config, layer) for name in names})
        on_codes = config.align_on == "both" and layer.quantizer.codes > 0
        self.on_codes = [name for name, each in self.alignments.items() if on_codes and not each.reads_codes]

    def samples(self, out: LayerOutput, layer: Layer) -> list[Sample]:
        """What each CLUB network is asked about, in the order of `club`."""
        apart = layer.disentangled(out) if self.club else {}
        return [Sample(*apart[name]) for name in self.club]

    def permutations(self, samples: Sequence[Sample], generator: torch.Generator) -> list[Tensor]:
        """Whom each clip is compared with by each CLUB network."""
        if not samples or self.config.club == "exact":
            return []
        return list(permutations([len(x) for x, _, _ in samples], generator, samples[0].x.device))

    def forward(
        self, out: LayerOutput, layer: Layer, generator: torch.Generator, known: dict[str, Measured]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses but reconstruction and CLUB, by name, and metrics, on the global batch.

        Args:
            generator: CPU generator of the random step and permutations, the same on every rank.
            known: what some alignments measured already.
        """
        losses, metrics = {}, {}
        if layer.quantizer.learns_by_ema:
            config, share = self.config, layer.quantizer.others_share
            committed = commitment(out.general, out.codes, config.beta, out.valid, config.mm_ema, share)
            losses["commitment"] = _sum(list(committed.values()))
        for name, alignment in self.alignments.items():
            losses[name], measured = known.get(name) or alignment(out, layer, generator)
            metrics |= measured
        for name in self.on_codes:
            of_codes = name + OF_CODES
            losses[of_codes], measured = known.get(of_codes) or self.alignments[name](as_codes(out), layer, generator)
            metrics |= {each + OF_CODES: value for each, value in measured.items()}
        return losses, metrics


def resolved(config: ObjectiveSettings, model: Model) -> ObjectiveSettings:
    """The same with what is compared: codes too, "both", where that is asked for, or `auto` and the codes of its layers
    learn by gradient; "features", where no alignment compares features that codes replace.

    Moving averages carry codes to what is aligned; parameters have to be taught.

    Raises:
        InputError: codes are to be compared as features are, and are wider.
    """
    asked = {name.partition(":")[0] for layer in model.code_layers for name in layer.aligned_by(config.align)}
    if all(ALIGNMENTS[name].load().reads_codes for name in asked):
        return config.but(align_on="features")
    quantizers = [layer.quantizer for layer in model.code_layers]
    alike = all(quantizer.width == model.config.dim for quantizer in quantizers)
    if config.align_on == "both" and not alike:
        raise InputError(
            f"--align-on both compares codes as it does features, of {model.config.dim} channels; those of "
            f"--quantizer {model.config.quantizer} have {quantizers[0].width}."
        )
    if config.align_on != "auto":
        return config
    learn = any(parameter.requires_grad for each in quantizers for parameter in each.parameters())
    return config.but(align_on="both" if alike and learn else "features")


def as_codes(out: LayerOutput) -> LayerOutput:
    """The output as if its general features were what quantization made of them."""
    return replace(out, general=out.quantized)


def _sum(values: Sequence[Tensor]) -> Tensor:
    return sum(values[1:], values[0])


def _alignment(text: str, config: ObjectiveSettings, layer: Layer) -> Alignment:
    """The alignment `cpc`, or of some pairs alone, `cpc:av`."""
    name, _, letters = text.partition(":")
    alignment = ALIGNMENTS[name].load().of(config, layer)
    return OfPairs(alignment, groups_of(name, letters, layer.config.modalities)) if letters else alignment


class Objective(nn.Module):
    """The losses of all layers."""

    def __init__(self, config: ObjectiveSettings, model: Model):
        super().__init__()
        self.config = config = resolved(config, model)
        if not model.config.layers and len(model.config.modalities) < 2:
            raise InputError(
                "--layers 0 learns what modalities have in common, and there is one alone: use --layers 1, "
                "or more modalities."
            )
        self.layers = nn.ModuleList(LayerObjective(config, layer) for layer in model.layers)

    def club_parameters(self):
        return [p for layer in self.layers for p in layer.club.parameters()]

    def alignment_parameters(self) -> dict[str, list[nn.Parameter]]:
        """What learns with the model, by layer and alignment, as in `1/cpc`; not what follows an average."""
        found = {
            f"{number}/{name}": [p for p in alignment.parameters() if p.requires_grad]
            for number, layer in enumerate(self.layers, 1)
            for name, alignment in layer.alignments.items()
        }
        return {name: parameters for name, parameters in found.items() if parameters}

    def observe(
        self, layers: Iterable[Layer], local: list[LayerOutput], outputs: list[LayerOutput], world: World
    ) -> None:
        """Add to the global batch's outputs what single alignments see in this rank's and the others'."""
        for objective, layer, mine, out in zip(self.layers, layers, local, outputs):
            for alignment in objective.alignments.values():
                out.observed[alignment] = everyone(alignment.observe(mine, layer), world)

    def follow(self, layers: Iterable[Layer]) -> None:
        """Tell the alignments that a step has been made."""
        for objective, layer in zip(self.layers, layers):
            for alignment in objective.alignments.values():
                alignment.follow(layer)

    def club_groups(self, outputs: list[LayerOutput], layers: Iterable[Layer]) -> list[ClubGroup]:
        """The CLUB networks and what they are fitted to: detached features."""
        clubs, samples = [], []
        for mine, layer, out in zip(self.layers, layers, outputs):
            clubs += mine.club.values()
            samples += [Sample(x.detach(), y.detach(), valid) for x, y, valid in mine.samples(out, layer)]
        return grouped(clubs, samples)

    def forward(
        self,
        model: Model,
        local: list[LayerOutput],
        outputs: list[LayerOutput],
        rebuilt: list[dict[str, Tensor]],
        generator: torch.Generator,
        world: World,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss and every term by name (`loss/1/cpc`), layer by layer.

        Args:
            local: this rank's outputs, for the reconstruction.
            outputs: those of the global batch (the same list on one process).
            rebuilt: what the decoders made of `local`.
        """
        samples = [objective.samples(out, layer) for objective, layer, out in zip(self.layers, model.layers, outputs)]
        known, drawn, found = self._aligned(outputs), [], []
        for objective, layer, out, asked, measured in zip(self.layers, model.layers, outputs, samples, known):
            drawn += objective.permutations(asked, generator)
            found.append(objective(out, layer, generator, measured))
        bounds = self._club_bounds(samples, drawn)
        total, terms = [], {}
        parts = zip(found, bounds, local, outputs, rebuilt)
        for number, ((losses, metrics), bound, mine, out, decoded) in enumerate(parts, 1):
            if bound is not None:
                losses["club"] = bound
            if decoded:
                losses["reconstruction"] = self._reconstruction(decoded, mine, out, world)
            total.append(_sum(list(losses.values())))
            terms |= {f"loss/{number}/{name}": value.detach() for name, value in losses.items()}
            terms |= {f"{name}/{number}": value.detach() for name, value in metrics.items()}
        return _sum([total[0], *(self.config.deeper * deeper for deeper in total[1:])]), terms

    def _aligned(self, outputs: list[LayerOutput]) -> list[dict[str, Measured]]:
        """What alignments measure of all layers at once; for each layer, by name."""
        known: list[dict[str, Measured]] = [{} for _ in outputs]
        for name, first in self.layers[0].alignments.items() if len(outputs) > 1 else ():
            alike = [objective.alignments[name] for objective in self.layers if name in objective.alignments]
            if len(alike) >= len(outputs):
                views = {name: outputs}
                if name in self.layers[0].on_codes:
                    views[name + OF_CODES] = [as_codes(out) for out in outputs]
                for view, seen in views.items():
                    for mine, measured in zip(known, type(first).of_layers(alike[: len(outputs)], seen) or ()):
                        mine[view] = measured
        return known

    def _club_bounds(self, samples: list[list[Sample]], drawn: list[Tensor]) -> list[Tensor | None]:
        """The CLUB networks' bounds, for each layer; None where it has no networks."""
        asked = [sample for mine in samples for sample in mine]
        clubs = [club for objective, _ in zip(self.layers, samples) for club in objective.club.values()]
        if not clubs:
            return [None] * len(samples)
        if self.config.club_gradient == "specific":
            asked = [sample._replace(x=sample.x.detach()) for sample in asked]
        bounds = exact_bounds(clubs, asked) if self.config.club == "exact" else sampled_bounds(clubs, asked, drawn)
        parts = (self.config.club_weight * bounds).split([len(mine) for mine in samples])
        return [part.sum() if len(part) else None for part in parts]

    @staticmethod
    def _reconstruction(decoded: dict[str, Tensor], local: LayerOutput, out: LayerOutput, world: World) -> Tensor:
        """This rank's part of the sum over modalities of the global batch's MSE."""
        losses = []
        for name, rebuilt in decoded.items():
            squares, valid = mse_loss(rebuilt, local.inputs[name], reduction="none"), local.valid and local.valid[name]
            loss = masked_mean(squares, valid)
            if out.valid is not None:
                loss = loss * (local.valid[name].sum() / out.valid[name].sum())
            elif world.size > 1:
                loss = loss / world.size
            losses.append(loss)
        return _sum(losses)

    def weight(self, layer: int) -> float:
        """Weight of a layer's losses, counted from 1."""
        return 1.0 if layer == 1 else self.config.deeper

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The total of the terms `loss/K/NAME`."""
        return sum(
            self.weight(int(name.split("/")[1])) * value for name, value in terms.items() if name.startswith("loss/")
        )


def current_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of an `Objective` by the names of today, from one that version 0.1 saved."""
    names = {".methods.": ".alignments.", ".codis.loss.contrast.": ".codis.", ".codis.loss.": ".codis."}
    for old, new in names.items():
        state = {name.replace(old, new): value for name, value in state.items()}
    return state


def everyone(tensors: dict[str, Tensor], world: World) -> dict[str, Tensor]:
    """Tensors [B, ...] of this rank's clips -> those of the global batch."""
    return dict(zip(tensors, world.gather(list(tensors.values())), strict=True))


def all_of_everyone(groups: Sequence[dict[str, Tensor]], world: World) -> list[dict[str, Tensor]]:
    """The same of several groups of tensors, in one message."""
    gathered = iter(world.gather([x for group in groups for x in group.values()]))
    return [{name: next(gathered) for name in group} for group in groups]


def gather_output(out: LayerOutput, world: World) -> LayerOutput:
    """The layer's output for the global batch: everything the losses compare between clips.

    Inputs and the decoders' specific features stay local; reconstruction needs no other clip.
    """
    if world.size == 1:
        return out
    general, summary, valid, codes, quantized, indices = all_of_everyone(
        (out.general, out.summary, out.valid or {}, out.codes, out.quantized, out.indices), world
    )
    gathered = LayerOutput(out.inputs, general, specific=out.specific, summary=summary, valid=out.valid and valid)
    gathered.codes, gathered.quantized, gathered.indices = codes, quantized, indices
    return gathered


def gather_codes(out: LayerOutput, gathered: LayerOutput, world: World) -> None:
    """Give the global batch the codes that every rank found for its own clips.

    They are not looked for again: where the quantizer's own parameters learn, each rank has the gradient of its own
    clips alone, as with all that the model computes.
    """
    gathered.codes, gathered.quantized, gathered.indices = all_of_everyone(
        (out.codes, out.quantized, out.indices), world
    )
