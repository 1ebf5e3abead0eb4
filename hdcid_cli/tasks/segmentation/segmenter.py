"""The whole segmenter: pictures and queries in, masks out."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from hdcid_cli.core.errors import InputError
from hdcid_cli.tasks.segmentation.backbones import build_backbone
from hdcid_cli.tasks.segmentation.decoder import Decoder

# ImageNet's statistics, with which the published backbones were trained.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class SegmenterSettings:
    """Architecture of a segmenter.

    Args:
        backbone: layout of the picture encoder, a transformers configuration.
        query: width of a query vector.
        width: channels of the decoder.
        size: pictures and masks are size x size; a multiple of 32, which the four stages divide by.
    """

    backbone: dict
    query: int
    width: int = 256
    size: int = 224

    def __post_init__(self):
        if self.size < 32 or self.size % 32:
            raise InputError(f"--size should be a multiple of 32, such as 96, 128 or 224, not {self.size}.")
        if self.width < 8 or self.width % 8:
            raise InputError(f"--width should be a multiple of 8, not {self.width}.")

    def to_dict(self) -> dict:
        return asdict(self)


class Segmenter(nn.Module):
    """
    Args:
        config: the architecture.
        backbone: an encoder with weights; by default one of `config.backbone` with random weights.
        start: see `TPAVI`.
    """

    def __init__(self, config: SegmenterSettings, backbone: nn.Module | None = None, start: float = 0.0):
        super().__init__()
        self.config = config
        self.backbone = backbone if backbone is not None else build_backbone(config.backbone)
        self.decoder = Decoder(self.backbone.channels, config.query, config.width, start)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1) * 255, persistent=False)

    def stages(self, pictures: Tensor) -> Sequence[Tensor]:
        """Picture features, which no query changes: [B, T, H, W, 3] uint8 -> four maps [B * T, C_k, H_k, W_k]."""
        x = pictures.flatten(0, 1).permute(0, 3, 1, 2).to(self.mean.dtype)
        return self.backbone((x - self.mean) / self.std).feature_maps

    def forward(self, pictures: Tensor, query: Tensor) -> Tensor:
        """
        Args:
            pictures: [B, T, H, W, 3] uint8.
            query: [B, T, Q], one vector a frame.

        Returns:
            Mask logits [B, T, H, W].
        """
        return self.decoder(self.stages(pictures), query)
