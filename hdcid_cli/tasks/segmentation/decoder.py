"""From four stages of picture features and a query to one mask a frame (AVSBench's decoder).

stage k --> sum of dilated convolutions --> TPAVI with the query --+
                                                                   v
stage k+1, fused ------------------------------------> fusion, twice the size --> ... --> head
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, relu

from hdcid_cli.tasks.segmentation.tpavi import TPAVI

DILATIONS = (3, 6, 12, 18)


class DilatedSum(nn.Module):
    """The sum of four 3x3 convolutions of growing reach: [N, C, H, W] -> [N, width, H, W]."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, width, 3, padding=step, dilation=step) for step in DILATIONS
        )
        for convolution in self.convolutions:
            nn.init.normal_(convolution.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        return sum(_dilated(convolution, x) for convolution in self.convolutions)


def _dilated(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """A 3x3 convolution that spares the taps which never meet the map: at a dilation of its side or more all but the
    middle.
    """
    if convolution.dilation[0] < max(x.shape[2:]):
        return convolution(x)
    return conv2d(x, convolution.weight[:, :, 1:2, 1:2], convolution.bias)


class RefinementUnit(nn.Module):
    """relu(x) + conv(relu(conv(relu(x)))): the published first ReLU acts in place, so the sum takes it too."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(x)
        return x + self.conv2(relu(self.conv1(x)))


class Fusion(nn.Module):
    """Add a stage to what comes from the deeper ones, refine, and double the size."""

    def __init__(self, width: int, deepest: bool):
        super().__init__()
        self.stage = None if deepest else RefinementUnit(width)
        self.refine = RefinementUnit(width)

    def forward(self, stage: Tensor, deeper: Tensor | None) -> Tensor:
        x = stage if deeper is None else deeper + self.stage(stage)
        return interpolate(self.refine(x), scale_factor=2, mode="bilinear", align_corners=True)


class Head(nn.Module):
    """[N, width, H, W] -> mask logits [N, 2 H, 2 W].

    A narrow one keeps 16 channels before the last convolution (32 as published): the first steps push every logit down,
    as most pixels are empty, and of four channels behind a ReLU all may die of that.
    """

    def __init__(self, width: int):
        super().__init__()
        last = max(width // 8, 16)
        self.conv1 = nn.Conv2d(width, max(width // 2, last), 3, padding=1)
        self.conv2 = nn.Conv2d(max(width // 2, last), last, 3, padding=1)
        self.conv3 = nn.Conv2d(last, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = interpolate(self.conv1(x), scale_factor=2, mode="bilinear", align_corners=False)
        return self.conv3(relu(self.conv2(x))).squeeze(1)


class Decoder(nn.Module):
    """
    Args:
        stages: channels of the four stages, at 1/4, 1/8, 1/16 and 1/32 of the picture's size.
        query: width of the query vectors.
        width: channels of the decoder (256 as published).
        start: see `TPAVI`.
    """

    def __init__(self, stages: Sequence[int], query: int, width: int = 256, start: float = 0.0):
        super().__init__()
        deepest = len(stages) - 1
        self.reduce = nn.ModuleList(DilatedSum(channels, width) for channels in stages)
        self.tpavi = nn.ModuleList(TPAVI(width, query, start) for _ in stages)
        self.fusion = nn.ModuleList(Fusion(width, number == deepest) for number in range(len(stages)))
        self.head = Head(width)

    def forward(self, stages: Sequence[Tensor], query: Tensor, wanted: int | None = None) -> Tensor:
        """
        Args:
            stages: four maps [B * T, C_k, H_k, W_k], frames of a clip one after the other.
            query: [B, T, Q].
            wanted: give the masks of the first so many frames, by default of all. Frames meet in TPAVI alone, so
                training on the first one can spare the others' way through fusion and head: half of all the work.

        Returns:
            Mask logits [B, wanted, H, W], at the size of the pictures.
        """
        clips, frames = query.shape[:2]
        fused = None
        for reduce, tpavi, fusion, stage in reversed(
            list(zip(self.reduce, self.tpavi, self.fusion, stages, strict=True))
        ):
            x = reduce(stage).unflatten(0, (clips, frames)).transpose(1, 2)  # [B, C, T, H, W]
            x = tpavi(x, query)[:, :, :wanted].transpose(1, 2).flatten(0, 1)
            fused = fusion(x, fused)
        return self.head(fused).unflatten(0, (clips, -1))
