"""From media to features: one file a backbone, each with `load(options) -> Backbone`."""

import importlib

from hdcid_cli.backbones.backbone import Backbone, Options
from hdcid_cli.core.errors import InputError

# The first of each modality is the papers'; the second needs no weights.
BACKBONES = {"video": ("vgg19", "hog"), "audio": ("vggish", "logmel"), "text": ("bert", "hash")}


def load_backbone(modality: str, name: str | None, options: Options) -> Backbone:
    """The backbone by name; the papers' one for that modality if there is none."""
    name = name or BACKBONES[modality][0]
    if name not in BACKBONES[modality]:
        raise InputError(f"There is no {modality} backbone {name!r}: use {' or '.join(BACKBONES[modality])}.")
    return importlib.import_module(f"hdcid_cli.backbones.{name}").load(options)
