"""Some of the pairs of modalities alone: `cpc:av` within these, `infonce:t` all pairs with this one."""

from dataclasses import replace

import torch
from torch import Tensor

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.modalities import LETTERS
from hdcid_cli.models.hdcid import Layer, LayerOutput
from hdcid_cli.training.alignments import ALIGNMENTS
from hdcid_cli.training.losses.alignment import Alignment


class OfPairs(Alignment):
    """Another alignment, shown some modalities of a layer's output at a time.

    Args:
        inner: the alignment.
        groups: the modalities that it is shown together; its losses are added up.
    """

    def __init__(self, inner: Alignment, groups: list[tuple[str, ...]]):
        super().__init__()
        self.inner, self.groups = inner, groups
        self.reads_codes = inner.reads_codes

    def observe(self, out: LayerOutput, layer: Layer) -> dict[str, Tensor]:
        return self.inner.observe(out, layer)

    def forward(self, out: LayerOutput, layer: Layer, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        losses, metrics = [], []
        for group in self.groups:
            loss, found = self.inner(_part(out, group, self, self.inner), layer, generator)
            losses.append(loss)
            metrics.append(found)
        return sum(losses), {name: sum(found[name] for found in metrics) / len(metrics) for name in metrics[0]}

    def follow(self, layer: Layer) -> None:
        self.inner.follow(layer)


def groups_of(name: str, letters: str, modalities: tuple[str, ...]) -> list[tuple[str, ...]]:
    """What `letters` after an alignment's name mean, among a layer's modalities.

    Raises:
        InputError: a modality that the model has not, or one letter after a loss that is no sum over pairs.
    """
    named = [LETTERS[letter] for letter in letters]
    absent = [name for name in named if name not in modalities]
    if absent:
        raise InputError(f"--align {name}:{letters} asks for {absent[0]}, which is not among the --modalities.")
    if len(named) > 1:
        return [tuple(each for each in modalities if each in named)]
    if not ALIGNMENTS[name].load().pairwise:  # what else it knows of a modality would count twice
        raise InputError(
            f"--align {name}:{letters}: {name} takes two letters or more; one, for all pairs with it, goes with "
            f"{', '.join(name for name, entry in ALIGNMENTS.items() if entry.load().pairwise)}."
        )
    return [
        tuple(each for each in modalities if each in (named[0], other)) for other in modalities if other != named[0]
    ]


def _part(out: LayerOutput, names: tuple[str, ...], outer: Alignment, inner: Alignment) -> LayerOutput:
    """The output as if the layer had these modalities alone."""

    def some(values: dict) -> dict:
        return {name: values[name] for name in names if name in values}

    return replace(
        out,
        **{field: some(getattr(out, field)) for field in FIELDS},
        valid=out.valid and some(out.valid),
        observed={inner: some(out.observed.get(outer, {}))},
    )


FIELDS = ("inputs", "general", "codes", "quantized", "indices", "specific", "summary")
