"""How well held-out clips find each other while a model learns: without labels, and nothing is learned from them."""

from collections.abc import Sequence
from itertools import combinations
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hdcid_cli.core.features import FeatureFile
from hdcid_cli.core.loading import ClipReader
from hdcid_cli.core.precision import matmul_precision
from hdcid_cli.models.assembled import Model
from hdcid_cli.models.hdcid import valid_segments
from hdcid_cli.models.quantizers.quantizer import Quantizer
from hdcid_cli.models.segments import at_length, masked_mean, time_mean, valid_in

MOST_CLIPS = 256  # spread over all; their features stay in memory
BATCH = 64
# One clip is always found, and of two or three the share says little.
LEAST_CLIPS = 4


class Validation:
    """A few clips that are not learned from, looked at every so many steps.

    Args:
        files: feature files by modality.
        names: of the clips; those that not every modality has are passed over.
        every: steps between two looks; 0 for none.
        measures: whether this process is the one to look; others only know when.
    """

    def __init__(self, files: dict[str, FeatureFile], names: Sequence[str], every: int, measures: bool = True):
        there = [name for name in names if all(name in file.index for file in files.values())]
        count = min(len(there), MOST_CLIPS)
        self.clips = [there[number * len(there) // count] for number in range(count)]
        self.every = every if count >= LEAST_CLIPS else 0
        self._reader = ClipReader(files, self.clips, "ram") if self.every and measures else None

    def due(self, step: int, last: int) -> bool:
        """Whether to look after a step: after every so many, and after the last one."""
        return bool(self.every) and (step % self.every == 0 or step == last)

    @torch.no_grad()
    def measure(self, model: Model, layers: int) -> dict[str, float]:
        """What a record says of the clips, for every pair of modalities.

        `validation/r@1/audio-video`: percent of clips whose own partner is the most similar of all, the mean of both
        ways; similar by the cosine of the mean quantized features. `validation/agreement/1/audio-video`: the share of
        segments to which both modalities give one code of layer 1 (of blocks of codes, the mean over them).

        Args:
            layers: how many have joined; before one that has codes did, there is nothing to say.
        """
        without = len(model.layers) - len(model.code_layers)  # they come first
        layers -= without
        if layers < 1:
            return {}
        training = model.training
        model.eval()
        codes, summaries, valid = self._encode(model, layers)
        model.train(training)
        found: dict[str, float] = {}
        for one, other in combinations(codes, 2):
            with matmul_precision("float32"):  # clips with the same codes tie
                similarity = summaries[one] @ summaries[other].T
            both = (found_first(similarity) + found_first(similarity.T)) / 2
            found[f"validation/r@1/{one}-{other}"] = 100 * float(both)
            steps = max(codes[one].shape[1], codes[other].shape[1])
            same = (at_length(codes[one], steps) == at_length(codes[other], steps)).float()  # [N, T, layers, blocks]
            counted = valid_in(valid, steps, one, other)
            for layer in range(layers):
                place = f"{without + layer + 1}/{one}-{other}"
                found[f"validation/agreement/{place}"] = float(masked_mean(same[:, :, layer].mean(-1), counted))
        return found

    def _encode(self, model: Model, layers: int) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """{modality: codes [N, T, layers, blocks]}, {modality: unit summaries [N, layers D]}, {modality: valid [N, T]};
        the layers are those with codes.
        """
        assert self._reader is not None
        parameter, quantizer = next(model.parameters()), cast(Quantizer, model.code_layers[0].quantizer)
        codes: dict[str, list[Tensor]] = {name: [] for name in self._reader.features}
        means: dict[str, list[Tensor]] = {name: [] for name in codes}
        valid: dict[str, list[Tensor]] = {name: [] for name in codes}
        for start in range(0, len(self.clips), BATCH):
            places = range(start, min(start + BATCH, len(self.clips)))
            for name, array in self._reader.read(places).items():
                x = torch.as_tensor(array).to(parameter.device, parameter.dtype)
                lengths = torch.from_numpy(self._reader.lengths[name][places.start : places.stop])
                quantized, indices = model.encode(name, x, lengths)
                valid[name].append(valid_segments(lengths, x))
                codes[name].append(indices[:, :, :layers, : quantizer.parts])
                means[name].append(time_mean(quantized[:, :, :layers].flatten(2), valid[name][-1]))
        joined = {name: normalize(torch.cat(parts), dim=1) for name, parts in means.items()}
        return {name: torch.cat(parts) for name, parts in codes.items()}, joined, {
            name: torch.cat(parts) for name, parts in valid.items()
        }  # fmt: skip


def found_first(similarity: Tensor) -> Tensor:
    """The share of rows [N, N] whose own column comes first; of columns as similar as it, each may be first."""
    own = similarity.diagonal().unsqueeze(1)
    tolerance = 1e-5 * own.abs().mean()  # rounding must not decide a tie
    better, tied = (similarity > own + tolerance).sum(1), ((similarity - own).abs() <= tolerance).sum(1)
    return torch.where(better == 0, 1 / tied, 0).mean()
