"""Decoders: a segment from its code and its specific feature (reconstruction term of eq. 4)."""

import torch
from torch import Tensor, nn

from hdcid_cli.models.convolution import ConvTranspose1x1, ConvTranspose3x3
from hdcid_cli.models.encoders import ResidualUnit


class VectorDecoder(nn.Module):
    """Linear([Linear(code); specific]): [B, T, D], [B, T, S] -> [B, T, C]."""

    def __init__(self, dim: int, specific: int, output_dim: int):
        super().__init__()
        self.code = nn.Linear(dim, specific)
        self.output = nn.Linear(2 * specific, output_dim)

    def forward(self, code: Tensor, specific: Tensor) -> Tensor:
        return self.output(torch.cat([self.code(code), specific], dim=-1))


class MapDecoder(nn.Module):
    """Transposed convolutions over [code at every cell; specific map]: -> [B, T, H, W, C]."""

    def __init__(self, dim: int, channels: int, hidden: int = 1024, specific: int = 2048):
        super().__init__()
        self.code = nn.Linear(dim, dim)
        self.conv1 = ConvTranspose3x3(dim + specific, hidden)
        self.residual = ResidualUnit(hidden)
        self.conv2 = ConvTranspose3x3(hidden, channels)
        self.conv3 = ConvTranspose1x1(channels, channels)

    def forward(self, code: Tensor, specific: Tensor) -> Tensor:
        _, _, height, width, _ = specific.shape
        code = self.code(code)[:, :, None, None, :].expand(-1, -1, height, width, -1)
        x = torch.cat([code, specific], dim=-1).flatten(0, 1)
        x = self.residual(self.conv1(x)).relu()
        return self.conv3(self.conv2(x).relu()).unflatten(0, specific.shape[:2])
