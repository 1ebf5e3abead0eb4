"""Any encoder of pictures or clips that transformers loads: a map [grid, grid, width] or a vector a second.

Pictures (ViT, DINOv2, CLIP, SigLIP, ConvNeXt, Swin, ResNet, PVT, ...): each frame goes through the encoder; its patches
or its feature map are averaged into a grid, and a second is the mean over its frames. Clips (VideoMAE, ViViT,
TimeSformer): the frames of a second are one clip, and the mean over its steps in time is taken.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdcid_cli.backbones.backbone import Backbone, Options
from hdcid_cli.backbones.encoder import Encoder, open_encoder
from hdcid_cli.backbones.network import Network, probe
from hdcid_cli.backbones.picture_input import PictureInput, read_picture_input
from hdcid_cli.core.errors import InputError
from hdcid_cli.media.video import frame_parts

GRID = 7  # as VGG19's maps have
REMEDY = "name a picture encoder that transformers saved, or use vgg19 or hog"
# Larger frames are halved (and so on) while they are decoded: more detail than this many times what the encoder sees
# makes no difference to speak of, and a 4K frame takes 25 MB.
DETAIL = 2


def load(options: Options) -> Backbone:
    """The backbone for `options.model`, a folder or a name on the hub."""
    if options.pool not in (None, "grid", "cls"):
        raise InputError(f"Video features are pooled to a grid or to the class token, not by --pool {options.pool}.")
    encoder = open_encoder("video", options, REMEDY)
    name = encoder.snapshot.name
    try:
        prepared = read_picture_input(encoder.snapshot.folder)
        shape = prepared.shape
    except InputError as problem:
        raise InputError(f"The picture encoder {name} cannot be used ({problem}): {REMEDY}.") from problem
    frames = getattr(encoder.config, "num_frames", None)
    fps = frames if frames and options.fps == Options.fps else options.fps
    module: nn.Module = Clips(encoder, options, frames) if frames else Pictures(encoder, options)
    network = Network(module, options, batch_on_cpu=1, batch_on_gpu=16, prepare=partial(_prepare, prepared), half=True)
    segment = probe(lambda: module(torch.zeros(1, fps, 3, *shape, device=network.device)), name)
    return Backbone(
        name=options.described(name),
        modality="video",
        shape=segment,
        prepare=partial(frame_parts, seconds=options.seconds, fps=fps, edge=DETAIL * prepared.shorter_edge),
        network=network,
        batch_size=network.batch_size,
        weights=encoder.digest,
        revision=encoder.snapshot.revision,
        dtype="float16",
    )


def _prepare(prepared: PictureInput, frames: Tensor) -> Tensor:
    """A second [1, fps, height, width, 3] uint8 -> [1, fps, 3, H, W]."""
    return prepared(frames[0])[None]


class Pictures(nn.Module):
    """A picture encoder over the frames of seconds."""

    def __init__(self, encoder: Encoder, options: Options):
        super().__init__()
        self.encoder, self.module = encoder, encoder.module
        self.pool, self.layer, self.grid = options.pool, options.layer, options.grid or GRID

    def forward(self, frames: Tensor) -> Tensor:
        """[n, fps, 3, H, W] -> [n, grid, grid, width], or [n, width] for one cell or the class token."""
        n, fps = frames.shape[:2]
        x = self.pooled(frames.flatten(0, 1).to(next(self.module.parameters()).dtype))
        return x.unflatten(0, (n, fps)).float().mean(dim=1)

    def pooled(self, pixels: Tensor) -> Tensor:
        if self.pool == "cls":
            if self.encoder.joint is not None:
                return self.encoder.joint(pixel_values=pixels)
            states = self.encoder.hidden(self.layer, pixel_values=pixels)
            return class_token(states, states.ndim == 3 and _tokens_before(states.shape[1]), self.encoder)
        states = self.encoder.hidden(self.layer, pixel_values=pixels)
        return cells(feature_map(states, self.encoder), self.grid)


class Clips(nn.Module):
    """An encoder of clips, each of them a second.

    Args:
        frames: how many make a clip; where a second has more or fewer, they are taken evenly from it.
    """

    def __init__(self, encoder: Encoder, options: Options, frames: int):
        super().__init__()
        self.encoder, self.module, self.frames = encoder, encoder.module, frames
        self.pool, self.layer, self.grid = options.pool, options.layer, options.grid or GRID

    def forward(self, frames: Tensor) -> Tensor:
        """[n, fps, 3, H, W] -> [n, grid, grid, width], or [n, width] for one cell or the class token."""
        fps = frames.shape[1]
        chosen = [math.floor((number + 0.5) * fps / self.frames) for number in range(self.frames)]
        pixels = frames[:, chosen].to(next(self.module.parameters()).dtype)
        states = self.encoder.hidden(self.layer, pixel_values=pixels)
        config = self.encoder.config
        tubelet = getattr(config, "tubelet_size", 1)  # frames that one token looks at, alone or with its sides
        steps = self.frames // (tubelet if isinstance(tubelet, int) else tubelet[0])
        if self.pool == "cls":
            return class_token(states, _tokens_before(states.shape[1], steps), self.encoder).float()
        return cells(clip_map(states, steps, config.model_type == "timesformer"), self.grid).float()


def class_token(states: Tensor, before: int, encoder: Encoder) -> Tensor:
    """[n, tokens, width] -> [n, width], the first token, if there are any before those of the patches."""
    if not before:
        raise InputError(f"{encoder.snapshot.name} has no class token: use --grid 1, the mean over the picture.")
    return states[:, 0]


def feature_map(states: Tensor, encoder: Encoder) -> Tensor:
    """Hidden states of a square picture -> [n, width, side, side].

    They are a map already, or tokens [n, tokens, width] in rows of patches after the class and register tokens.
    """
    if states.ndim == 4:
        return states
    before = _tokens_before(states.shape[1])
    side = math.isqrt(states.shape[1] - before)
    return states[:, before:].transpose(1, 2).unflatten(2, (side, side))


def clip_map(states: Tensor, steps: int, time_last: bool) -> Tensor:
    """Tokens of a clip [n, tokens, width] -> [n, width, side, side], the mean over its steps in time.

    They come step by step or, if `time_last`, patch by patch.
    """
    side = math.isqrt(states.shape[1] // steps)
    tokens = states[:, _tokens_before(states.shape[1], steps) :]
    x = tokens.unflatten(1, (side * side, steps) if time_last else (steps, side * side))
    return x.mean(dim=2 if time_last else 1).transpose(1, 2).unflatten(2, (side, side))


def _tokens_before(tokens: int, steps: int = 1) -> int:
    """How many of the tokens of square pictures are no patches: those beyond the largest square of each step."""
    return tokens - steps * math.isqrt(tokens // steps) ** 2


def cells(maps: Tensor, grid: int) -> Tensor:
    """[n, width, side, side] -> [n, grid, grid, width], each cell the mean over what it covers; [n, width] for one."""
    x = F.adaptive_avg_pool2d(maps, grid).permute(0, 2, 3, 1)
    return x[:, 0, 0] if grid == 1 else x
