"""InfoNCE between seconds: what is seen and what is heard at one moment belong together."""

from typing import Self

import torch
from torch import Tensor

from hdcid_cli.core.errors import InputError
from hdcid_cli.models.hdcid import Layer, LayerOutput
from hdcid_cli.models.segments import at_length, valid_in, valid_rows
from hdcid_cli.training.losses.alignment import Alignment, measured
from hdcid_cli.training.losses.infonce import both_ways, cosines
from hdcid_cli.training.settings import ObjectiveSettings

SEEN, HEARD = "video", "audio"


class Seconds(Alignment):
    """Tell which second of all clips' sound belongs to a second of picture, among all of the batch, and back.

    Seconds of the same clip are among the wrong answers, so that a feature must say when, not only what; where an event
    lasts they are false ones, which costs less than it brings. Text has no seconds and takes no part.
    """

    def __init__(self, temperature: float = 0.1):
        super().__init__()
        self.temperature = temperature

    @classmethod
    def of(cls, settings: ObjectiveSettings, layer: Layer) -> Self:
        absent = [name for name in (SEEN, HEARD) if name not in layer.config.modalities]
        if absent:
            raise InputError(f"--align seconds compares picture and sound: {absent[0]} is not among the modalities.")
        return cls(settings.temperature)

    def forward(self, out: LayerOutput, layer: Layer, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        steps = max(out.general[name].shape[1] for name in (SEEN, HEARD))
        valid = valid_in(out.valid, steps, SEEN, HEARD)
        seen, heard = (valid_rows(at_length(out.general[name], steps), valid) for name in (SEEN, HEARD))
        loss, right = both_ways(cosines(seen, heard) / self.temperature)
        return loss, measured("seconds_accuracy", right, out)
