"""General encoders Phi (what modalities share) and specific encoders Psi (what is a modality's own).

Paper, section 3 and appendix A, eq. 1. Segments are vectors [B, T, C] or maps
[B, T, H, W, C]; maps keep the feature file's channels-last order throughout.
"""

import math

import torch
from torch import Tensor, nn

from hdcid_cli.core.precision import in_float64, unmixed
from hdcid_cli.models.convolution import Conv1x1, Conv3x3


class Standardize(nn.Module):
    """Every channel to mean 0 and deviation 1 over the training clips: [B, T, ..., C] -> the same.

    Backbones hand out non-negative features whose common part is larger than what tells clips apart.
    Without this, general features start out nearly alike and a handful of codes serves them all.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))

    @torch.no_grad()
    def fit(self, x: Tensor, floor: float = 0.1) -> None:
        """Take mean and deviation from features [..., C].

        Args:
            floor: least deviation to divide by, as a share of the mean one, so that a channel that
                hardly varies is not blown up.
        """
        x = in_float64(x.flatten(0, -2))
        deviation = x.std(dim=0, correction=0)
        self.mean.copy_(x.mean(dim=0))
        self.scale.copy_(deviation.clamp_min(floor * deviation.mean()).clamp_min(1e-6))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale


class TextFront(nn.Module):
    """Words to contextual vectors: a 2-layer bidirectional LSTM, [B, T, 768] -> [B, T, 2 * hidden]."""

    def __init__(self, input_dim: int, hidden: int = 128):
        super().__init__()
        self.lstm = nn.LSTM(input_dim, hidden, num_layers=2, batch_first=True, bidirectional=True)

    def forward(self, words: Tensor, lengths: Tensor | None = None) -> Tensor:
        """`lengths` [B], on the CPU: the backward direction starts at each text's last word; zeros after it.

        Never in mixed precision: on a GPU that would be float16, in which small gradients vanish.
        """
        with unmixed(words.device):
            if lengths is None:
                return self.lstm(words)[0]
            packed = nn.utils.rnn.pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
            read = self.lstm(packed)[0]
            return nn.utils.rnn.pad_packed_sequence(read, batch_first=True, total_length=words.shape[1])[0]


class MapPooling(nn.Module):
    """A map to a vector: channel gate, then spatial attention guided by the mean. [B, T, H, W, C] -> [B, T, C].

    Args:
        attention: "sum" weighs every cell by one, as the published code does (its softmax
            runs over an axis of length one); "softmax" is softmax over cells of tanh(score).
        hidden: units of a perceptron that adds to each gated cell what it makes of it (ours): a sum of cells
            tells how much of each channel is in a picture, this also what is found together in one place.
    """

    def __init__(
        self, channels: int, width: int | None = None, attention: str = "sum", hidden: int = 0, reduction: int = 8
    ):
        super().__init__()
        width = width or max(1, channels // 2)
        squeezed = max(1, channels // reduction)
        self.gate = nn.Sequential(
            nn.Linear(channels, squeezed, bias=False),
            nn.ReLU(),
            nn.Linear(squeezed, channels, bias=False),
            nn.Sigmoid(),
        )
        self.attention = attention
        if attention == "softmax":  # the sum needs no scores
            self.cell = nn.Linear(channels, width)
            self.mean = nn.Linear(channels, width)
            self.score = nn.Linear(width, 1)
        self.perceptron = None
        if hidden:
            self.perceptron = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def gain(self, maps: Tensor) -> Tensor:
        """What the gate makes of each channel, the same for all cells [B, T, C]."""
        return 1 + self.gate(maps.mean(dim=(2, 3)))

    def gated(self, maps: Tensor) -> Tensor:
        """The maps behind the gate, [B, T, H, W, C]."""
        return maps * self.gain(maps)[:, :, None, None, :]

    def forward(self, maps: Tensor) -> Tensor:
        if self.attention == "sum" and self.perceptron is None:  # one gain for all cells need not be given to each
            return maps.sum(dim=(2, 3)) * self.gain(maps)
        cells = self.gated(maps).flatten(2, 3)  # [B, T, cells, C]
        if self.perceptron is not None:
            cells = cells + self.perceptron(cells)
        if self.attention == "sum":
            return cells.sum(dim=2)
        score = self.score(self.cell(cells).relu() * self.mean(cells.mean(dim=2, keepdim=True)).relu())
        return (torch.softmax(score.tanh(), dim=2) * cells).sum(dim=2)


class GeneralEncoder(nn.Module):
    """Linear, then post-norm transformer layers without positions: [B, T, C] -> [B, T, D]."""

    def __init__(
        self,
        input_dim: int,
        dim: int = 256,
        layers: int = 2,
        heads: int = 4,
        feedforward: int = 1024,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.input = nn.Linear(input_dim, dim)
        self.transformer = make_transformer(dim, layers, heads, feedforward, dropout)

    def forward(self, segments: Tensor, padding: Tensor | None = None) -> Tensor:
        """`padding` [B, T] is True where a segment is not valid."""
        return self.transformer(self.input(segments), src_key_padding_mask=padding)


class Prototypes(nn.Module):
    """A segment as attention over prototypes that all modalities share: softmax(Q z . P / sqrt(D)) P (TURN).

    Args:
        prototypes: their number L.
        dim: width D.
    """

    def __init__(self, prototypes: int, dim: int):
        super().__init__()
        self.prototypes = nn.Parameter(torch.randn(prototypes, dim))
        self.query = nn.Linear(dim, dim)

    def forward(self, z: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        scores = self.query(z) @ self.prototypes.T / math.sqrt(z.shape[-1])
        return torch.softmax(scores, dim=-1) @ self.prototypes


def make_transformer(dim: int, layers: int, heads: int, feedforward: int, dropout: float) -> nn.Module:
    layer = nn.TransformerEncoderLayer(dim, heads, feedforward, dropout, activation="relu", batch_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


class SpecificEncoder(nn.Module):
    """relu(Linear): [B, T, C] -> [B, T, S], which is its own summary.

    Attributes:
        reads_gated: whether it reads a map behind the general encoder's channel gate.
        summary_width: width of the summary, a vector that CLUB and the next layer read.
        summary: the network that makes it of the specific feature.
    """

    reads_gated = False

    def __init__(self, input_dim: int, output_dim: int):
        super().__init__()
        self.linear = nn.Linear(input_dim, output_dim)
        self.summary = nn.Identity()
        self.summary_width = output_dim

    def forward(self, segments: Tensor) -> tuple[Tensor, Tensor]:
        specific = self.linear(segments).relu()
        return specific, self.summary(specific)


class ResidualUnit(nn.Module):
    """y = relu(x) + Conv1x1(relu(Conv3x3(relu(x)))), convolutions without bias: [N, H, W, C] -> the same.

    The first ReLU of the published unit works in place, so the skip carries relu(x), not x.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv3 = Conv3x3(channels, channels, padding=1, bias=False)
        self.conv1 = Conv1x1(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        return x + self.conv1(self.conv3(x).relu())


class MapSpecificEncoder(nn.Module):
    """Convolutions over each segment's map, and a summary vector of the result.

    [B, T, H, W, C] -> map [B, T, H-4, W-4, S] and summary [B, T, C]; attributes as of `SpecificEncoder`.
    """

    reads_gated = False

    def __init__(self, channels: int, hidden: int = 1024, specific: int = 2048):
        super().__init__()
        self.conv1 = Conv3x3(channels, hidden)
        self.conv2 = Conv3x3(hidden, specific)
        self.conv3 = Conv1x1(specific, specific)
        self.residual = ResidualUnit(specific)
        self.summary = nn.Sequential(nn.Linear(specific, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.summary_width = channels

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv2(self.conv1(maps.flatten(0, 1)).relu()).relu()
        x = self.residual(self.conv3(x)).relu().unflatten(0, maps.shape[:2])
        return x, self.summary(x.mean(dim=(2, 3)))


class NormedMapSpecificEncoder(nn.Module):
    """Convolutions and batch norms over the gated maps, as CoDAAR has them (https://arxiv.org/abs/2605.12145).

    [B, T, H, W, C] -> map [B, T, H-4, W-4, S] and summary [B, T, C] (there is none in CoDAAR); attributes as of
    `SpecificEncoder`. The norms' statistics are those of all B T maps.
    """

    reads_gated = True

    def __init__(self, channels: int, hidden: int = 1024, specific: int = 2048):
        super().__init__()
        self.conv1, self.norm1 = Conv3x3(channels, hidden), nn.BatchNorm1d(hidden)
        self.conv2, self.norm2 = Conv3x3(hidden, specific), nn.BatchNorm1d(specific)
        self.summary = nn.Sequential(nn.Linear(specific, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.summary_width = channels

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        x = maps.flatten(0, 1)
        for convolution, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
            x = convolution(x)
            x = norm(x.flatten(0, 2)).view_as(x).relu()
        x = x.unflatten(0, maps.shape[:2])
        return x, self.summary(x.mean(dim=(2, 3)))


# A map's specific encoder, by the names of `--map-encoder`.
MAP_ENCODERS = {"residual": MapSpecificEncoder, "bn": NormedMapSpecificEncoder}
