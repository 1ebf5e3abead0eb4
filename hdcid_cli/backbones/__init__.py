"""From media to features: one file a backbone, each with `load(options) -> Backbone`."""

import importlib
from collections.abc import Collection
from dataclasses import replace

from hdcid_cli.backbones.backbone import Backbone, Options, read_description
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.progress import makes_no_difference
from hdcid_cli.core.settings import option_name

# Name -> the module that loads it. The first of each modality is the papers'; the second needs no weights. A backbone
# of one's own is an entry more: BACKBONES["video"]["mine"] = "my_package.my_backbone".
BACKBONES = {
    "video": {"vgg19": "hdcid_cli.backbones.vgg19", "hog": "hdcid_cli.backbones.hog"},
    "audio": {"vggish": "hdcid_cli.backbones.vggish", "logmel": "hdcid_cli.backbones.logmel"},
    "text": {"bert": "hdcid_cli.backbones.bert", "hash": "hdcid_cli.backbones.hash"},
}
# What loads a model of transformers, whatever its name.
ENCODERS = {
    "video": "hdcid_cli.backbones.vision",
    "audio": "hdcid_cli.backbones.sound",
    "text": "hdcid_cli.backbones.text",
}
# What ours read of the options that not every backbone reads.
_NETWORKS_READ = ("device", "precision", "batch_size")
_READS = {
    "vgg19": ("weights", "fps", *_NETWORKS_READ),
    "hog": ("fps",),
    "vggish": ("weights", "pca", *_NETWORKS_READ),
    "logmel": (),
    "bert": ("model", "allow_pickle", *_NETWORKS_READ),
    "hash": (),
}
# What models of transformers read of them; which model it is stands in --backbone.
_ENCODERS_READ = {
    "video": ("fps", "allow_pickle", *_NETWORKS_READ),
    "audio": ("allow_pickle", *_NETWORKS_READ),
    "text": ("allow_pickle", *_NETWORKS_READ),
}


def papers_backbone(modality: str) -> str:
    """The name of the backbone that the papers used."""
    return next(iter(BACKBONES[modality]))


def load_again(modality: str, description: str, options: Options) -> Backbone:
    """The backbone that a feature file names, with what was chosen about it then."""
    name, chosen = read_description(description)
    name, _, model = name.partition(":") if name.startswith("bert:") else (name, "", "")
    options = replace(options, **chosen)
    if name in _READS and "device" not in _READS[name]:  # that one is said of other work
        options = replace(options, device=Options.device)
    return load_backbone(modality, name, replace(options, model=model) if model else options)


def load_backbone(modality: str, name: str | None, options: Options) -> Backbone:
    """The backbone by name, or the model of transformers by its folder or name on the hub.

    The papers' one for that modality if there is no name.
    """
    if options.prompt is not None and modality != "text":
        raise InputError("--prompt is for text features.")
    if options.grid is not None and (modality != "video" or options.pool == "cls"):
        raise InputError("--grid is for video features, without --pool cls.")
    name = name or papers_backbone(modality)
    module = BACKBONES[modality].get(name)
    if module is None and not any(name in names for names in BACKBONES.values()):
        _tell_idle(name, _ENCODERS_READ[modality], options)
        return importlib.import_module(ENCODERS[modality]).load(replace(options, model=name))
    if name != "bert" and (options.pool, options.grid, options.layer, options.prompt) != (None,) * 4:
        raise InputError(f"--pool, --grid, --layer and --prompt are for models of transformers, not for {name}.")
    if module is None:
        raise InputError(f"There is no {modality} backbone {name!r}: use {' or '.join(BACKBONES[modality])}.")
    if name in _READS:
        _tell_idle(name, _READS[name], options)
    return importlib.import_module(module).load(options)


def _tell_idle(name: str, read: Collection[str], options: Options) -> None:
    """Say which options were chosen and make no difference to a backbone."""
    for option in dict.fromkeys(each for taken in _READS.values() for each in taken if each not in read):
        if getattr(options, option) != getattr(Options, option):
            readers = " and ".join(other for other, taken in _READS.items() if option in taken)
            why = "has no network" if option in _NETWORKS_READ else f"does not read it, {readers} would"
            makes_no_difference(option_name(option), f"{name} {why}")
