"""TPAVI, temporal pixel-wise audio-visual interaction (Zhou et al. 2022, AVSBench, section 4, eq. 1).

A non-local block with a dot product in place of a softmax: every pixel of every frame is
compared with the query of every frame, and takes up the features of the pixels there.
"""

import torch
from torch import Tensor, nn


class TPAVI(nn.Module):
    """output = LayerNorm(x + W_z y),  y_i = 1/N sum_j (theta(x_i) . phi(q_j)) g(x_j) over all N = T H W pixels.

    q_j is the query of pixel j's frame, so phi(q_j) is the same for all pixels of a frame, and the sum is
    computed from the right: y_i = theta(x_i) . sum_t phi(q_t) (sum of g over frame t)' / N. That is exact
    and needs O(N C^2) instead of O(N^2 C): at 5 x 56 x 56 pixels the published [N, N] map takes 1 GB a clip.

    Args:
        channels: C of the picture features.
        query: width of the query vectors.
        start: of W_z's norm. At 0, as published, the block does nothing but normalise at first, so as not to
            disturb pretrained picture features; at 1 the query has its say from the first step.
    """

    def __init__(self, channels: int, query: int, start: float = 0.0):
        super().__init__()
        inner = channels // 2
        self.align = nn.Linear(query, channels)
        self.theta = nn.Conv3d(channels, inner, 1)
        self.phi = nn.Linear(channels, inner)
        self.g = nn.Conv3d(channels, inner, 1)
        self.w_z = nn.Sequential(nn.Conv3d(inner, channels, 1), nn.BatchNorm3d(channels))
        self.norm = nn.LayerNorm(channels)
        nn.init.constant_(self.w_z[1].weight, start)

    def forward(self, x: Tensor, query: Tensor) -> Tensor:
        """
        Args:
            x: [B, C, T, H, W].
            query: [B, T, query], one vector a frame.

        Returns:
            [B, C, T, H, W]
        """
        pixels = x[0, 0].numel()
        phi = self.phi(self.align(query))  # [B, T, inner]
        g = self.g(x).sum((3, 4))  # [B, inner, T]
        pairs = torch.einsum("btc,bdt->bcd", phi, g) / pixels
        y = torch.einsum("bcthw,bcd->bdthw", self.theta(x), pairs)
        z = x + self.w_z(y)
        return self.norm(z.movedim(1, -1)).movedim(-1, 1)
