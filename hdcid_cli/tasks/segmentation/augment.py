"""More pictures out of few: mirrored and cropped at random. Not in the published recipe; small data sets need it."""

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

LEAST = 0.6  # of a picture's side that a crop keeps


def augment(pictures: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror every other clip and crop each to a window of its own, scaled back to the full size.

    Draws from torch's global generator. Frames and masks of a clip are treated alike.

    Args:
        pictures: [B, T, H, W, 3] uint8.
        masks: [B, M, H, W] bool.

    Returns:
        Both in the same shapes, the pictures as float32 in 0..255.
    """
    clips = len(pictures)
    side = LEAST + (1 - LEAST) * torch.rand(clips)
    middle = (2 * torch.rand(clips, 2) - 1) * (1 - side[:, None])
    mirror = 1 - 2 * (torch.rand(clips) < 0.5).float()
    window = torch.zeros(clips, 2, 3)
    window[:, 0, 0], window[:, 1, 1], window[:, :, 2] = side * mirror, side, middle
    window = window.to(pictures.device)

    def cut(x: Tensor, mode: str) -> Tensor:
        frames = x.shape[1]
        grid = affine_grid(window.repeat_interleave(frames, 0), [clips * frames, *x.shape[2:]], align_corners=False)
        return grid_sample(x.flatten(0, 1), grid, mode=mode, align_corners=False).unflatten(0, (clips, frames))

    cropped = cut(pictures.movedim(-1, 2).float(), "bilinear").movedim(2, -1)
    return cropped, cut(masks[:, :, None].float(), "nearest")[:, :, 0] > 0.5
