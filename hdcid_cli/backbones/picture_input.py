"""What an encoder of pictures wants done to a frame before it sees it: its `preprocessor_config.json`, in tensors.

Sizes, order and rounding are those of transformers' processors on Pillow.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from hdcid_cli.backbones.resize import FILTERS, NEAREST, resize
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import read_text

FILES = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
PARTS = ("image_processor", "video_processor")  # of processor_config.json

# Kinds of processors, without the endings of their names, and what they do where the file does not say.
_SQUARE, _SHORTEST, _CROP = (
    {"size": {"height": 224, "width": 224}},
    {"size": {"shortest_edge": 224}},
    {"crop_size": 224},
)
KINDS: dict[str, dict] = {
    "ViT": {**_SQUARE, "resample": 2},
    "Pvt": {**_SQUARE, "resample": 3},
    "Siglip": {**_SQUARE, "resample": 3},
    "Beit": {**_SQUARE, **_CROP, "resample": 3},
    "Blip": {"size": {"height": 384, "width": 384}, "resample": 3},
    "DeiT": {"size": {"height": 256, "width": 256}, **_CROP, "do_center_crop": True, "resample": 3},
    "CLIP": {**_SHORTEST, **_CROP, "do_center_crop": True, "resample": 3},
    "ChineseCLIP": {**_SHORTEST, **_CROP, "do_center_crop": True, "resample": 3},
    "Bit": {**_SHORTEST, **_CROP, "do_center_crop": True, "resample": 3},
    "VideoMAE": {**_SHORTEST, **_CROP, "do_center_crop": True, "resample": 2},
    "Timesformer": {**_SHORTEST, **_CROP, "do_center_crop": True, "resample": 2},
    "Vivit": {
        "size": {"shortest_edge": 256}, **_CROP, "do_center_crop": True, "resample": 2,
        "rescale_factor": 1 / 127.5, "offset": True,
    },
    "ConvNext": {"size": {"shortest_edge": 384}, "resample": 3, "crop_pct": 224 / 256},
    "DINOv3ViT": {**_SQUARE, "resample": 2},
}  # fmt: skip
ENDINGS = ("Pil", "Fast", "ImageProcessor", "VideoProcessor", "FeatureExtractor")
MODES = {2: "bilinear", 3: "bicubic"}  # what torch calls Pillow's filters
WARPED_FROM = 384  # ConvNext's processor: pictures of this size and more are not cropped


@dataclass(frozen=True)
class PictureInput:
    """Frames to what an encoder takes; `read_picture_input` makes one.

    Attributes:
        size: height and width to scale to; one number is the shorter edge; None keeps the frame's own.
        crop: height and width to cut out of the middle; None takes everything.
        resample: Pillow's number of the filter.
        scale, offset: a pixel p in 0..255 becomes p * scale + offset,
        mean, deviation: minus the mean, over the deviation, of each channel.
        whole: scaled pixels are whole numbers, as Pillow's are; else fractions are scaled, as torch does it.
    """

    size: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    resample: int
    scale: float
    offset: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    whole: bool = True

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of what the encoder takes, the same for frames of any size."""
        shape = self.crop or self.size
        if not isinstance(shape, tuple):
            raise InputError("its pictures would not have one size")
        return shape

    @property
    def shorter_edge(self) -> int:
        """Of a frame after scaling; detail beyond a multiple of it is of no use."""
        return self.size if isinstance(self.size, int) else min(self.size or self.shape)

    def __call__(self, frames: Tensor) -> Tensor:
        """[n, height, width, 3] uint8 RGB -> [n, 3, *shape] float32, on the same device."""
        target = self._target(*frames.shape[1:3])
        if self.whole:
            frames = resize(frames, target, self.resample)
        x = frames.permute(0, 3, 1, 2).float()
        if x.shape[2:] != target:
            x = F.interpolate(x, target, mode=MODES[self.resample], antialias=True)
        if self.crop is not None:
            x = center_crop(x, *self.crop)
        mean, deviation = (x.new_tensor(values)[:, None, None] for values in (self.mean, self.deviation))
        return (x * self.scale + (self.offset - mean)) / deviation

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if not isinstance(self.size, int):
            return self.size or (height, width)
        shorter, longer = sorted((height, width))
        longer = int(self.size * longer / shorter)
        return (longer, self.size) if width <= height else (self.size, longer)


def center_crop(x: Tensor, height: int, width: int) -> Tensor:
    """The middle of [..., H, W] as transformers cuts it; what is smaller gets zeros around it."""
    missing = [max(0, want - have) for want, have in zip((height, width), x.shape[-2:], strict=True)]
    top, left = ((have - want) // 2 for want, have in zip((height, width), x.shape[-2:], strict=True))
    if any(missing):
        above, before = (math.ceil(more / 2) for more in missing)
        x = F.pad(x, (before, missing[1] - before, above, missing[0] - above))
        top, left = top + above, left + before
    return x[..., max(0, top) : top + height, max(0, left) : left + width]


def read_picture_input(folder: Path) -> PictureInput:
    """Read what a model's folder says; InputError (without the model's name) if it says nothing that is known here."""
    said = _read(folder)
    name = next((said[key] for key in ("image_processor_type", "video_processor_type", "feature_extractor_type")
                 if isinstance(said.get(key), str)), "ViT")  # fmt: skip
    kind = name
    for ending in ENDINGS:
        kind = kind.removesuffix(ending)
    if kind not in KINDS:
        raise InputError(f"its pictures are prepared by {name}, which is not known here")
    values = {**KINDS[kind], **{key: value for key, value in said.items() if value is not None}}
    try:
        return _picture_input(kind, values)
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise InputError(f"its preprocessor_config.json cannot be understood: {error!r}") from error


def _read(folder: Path) -> dict[str, Any]:
    for name in FILES:
        if not (folder / name).is_file():
            continue
        try:
            said = json.loads(read_text(folder / name, limit=1 << 20))
            if name == FILES[-1]:
                said = next((said[part] for part in PARTS if part in said), None)
        except (ValueError, TypeError) as error:
            raise InputError(f"its {name} is not JSON") from error
        if isinstance(said, dict):
            return said
    raise InputError("it has no preprocessor_config.json, which says how pictures are prepared")


def _picture_input(kind: str, values: dict[str, Any]) -> PictureInput:
    resample = int(values["resample"])
    if resample not in (NEAREST, *FILTERS):
        raise InputError(f"its pictures are scaled by Pillow's filter {resample}, which is not known here")
    size = _size(values["size"], KINDS[kind]["size"]) if values.get("do_resize", True) else None
    crop = _size(values["crop_size"], {"height": 0}) if values.get("do_center_crop") else None
    if kind == "ConvNext" and size is not None:
        edge = size if isinstance(size, int) else size[0]
        if edge < WARPED_FROM:
            size, crop = int(edge / values["crop_pct"]), (edge, edge)
        else:
            size = (edge, edge)
    scale = float(values.get("rescale_factor", 1 / 255)) if values.get("do_rescale", True) else 1.0
    normal = values.get("do_normalize", True)
    read = PictureInput(
        size=size,
        crop=crop if isinstance(crop, tuple) else None,
        resample=resample,
        scale=scale,
        offset=-1.0 if values.get("offset") else 0.0,
        mean=_channels(values["image_mean"]) if normal else (0.0,) * 3,
        deviation=_channels(values["image_std"]) if normal else (1.0,) * 3,
        whole=kind != "DINOv3ViT",  # its processor scales fractions
    )
    if not all(0 < edge <= 4096 for edge in (*read.shape, read.shorter_edge)) or 0 in read.deviation:
        raise ValueError(values)
    return read


def _size(value: Any, default: dict) -> tuple[int, int] | int:
    """{"height", "width"}, {"shortest_edge"}, or one number, which old files leave to the kind to interpret."""
    if isinstance(value, dict):
        return int(value["shortest_edge"]) if "shortest_edge" in value else (int(value["height"]), int(value["width"]))
    if isinstance(value, list | tuple):
        height, width = value
        return int(height), int(width)
    return int(value) if "shortest_edge" in default else (int(value), int(value))


def _channels(value: Any) -> tuple[float, ...]:
    values = tuple(float(number) for number in value) if isinstance(value, list | tuple) else (float(value),) * 3
    if len(values) != 3:
        raise ValueError(value)
    return values
