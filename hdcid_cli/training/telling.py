"""What a run says of itself: in its bar and in warnings."""

import re

import torch
from torch import Tensor

from hdcid_cli.core.progress import warn

# Half-way through a run, a codebook of which fewer codes are in use will not open by itself.
COLLAPSED = 4
# At its end, fewer than this share of a codebook's codes are worth a word.
FEW = 0.05


def summary(record: dict) -> str:
    """A record in a few words: loss, codes in use, agreement, rate."""
    layer = next((name.split("/")[1] for name in record if name.startswith("used/")), "1")  # the first that has codes
    used = [value for name, value in record.items() if re.fullmatch(f"used/{layer}/[a-z]+", name)]
    agreement = [value for name, value in record.items() if name.startswith(f"agreement/{layer}/")]
    agree = f", {100 * sum(agreement) / len(agreement):.0f} % agree" if agreement else ""
    rate = (
        f", {record['flops_per_second'] / 1e9:.0f} GFLOP/s ({100 * record['share_of_peak']:.0f} % of peak)"
        if "share_of_peak" in record
        else ""
    )
    codes = f"{'/'.join(map(str, used))} {'code' if used == [1] else 'codes'}"
    return f"loss {record['loss']:.2f}, {codes}{agree}{rate}"


def warn_of_collapse(record: dict) -> None:
    """Tell of codebooks that have shrunk to a few codes."""
    few = [name.partition("/")[2] for name, value in record.items() if name.startswith("used/") and value < COLLAPSED]
    if few:
        warn(
            f"fewer than {COLLAPSED} codes are in use for {', '.join(few)}: the codebook has collapsed; try "
            "--codebook-start data or a smaller --lr."
        )


class CodesInUse:
    """Which codes were chosen, in every layer and modality.

    Args:
        codes: in each layer's codebook.
    """

    def __init__(self, codes: int):
        self.codes = codes
        self._seen: dict[str, Tensor] = {}  # how often each was chosen; the first place counts segments without one
        self._segments: dict[str, int] = {}

    def add(self, metrics: dict[str, Tensor]) -> None:
        """Take note of a step: `codes/LAYER/MODALITY` are its indices, -1 where there is none."""
        for name, indices in metrics.items():
            kind, _, place = name.partition("/")
            if kind == "codes":
                if place not in self._seen:
                    self._seen[place] = torch.zeros(self.codes + 1, dtype=torch.bool, device=indices.device)
                    self._segments[place] = 0
                self._seen[place][indices + 1] = True
                self._segments[place] += len(indices)

    def few(self) -> list[str]:
        """Phrases such as "layer 2 uses 5 of 400 codes for audio", where enough was seen to say so."""
        phrases = []
        for place, seen in self._seen.items():
            layer, _, name = place.partition("/")
            used = int(seen[1:].sum())
            if used < FEW * self.codes and self._segments[place] >= self.codes:
                name = name.replace("/", ", block ")
                phrases.append(f"layer {layer} uses {used} of {self.codes} codes for {name}")
        return phrases

    def warn(self) -> None:
        """Tell of few codes."""
        few = self.few()
        if few:
            warn(
                f"{', '.join(few)} (in the last epoch); a smaller --codebook, a smaller --idle or more --epochs may "
                "help."
            )
