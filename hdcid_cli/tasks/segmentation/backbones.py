"""Picture encoders with four stages, at 1/4, 1/8, 1/16 and 1/32 of the picture: PVT-v2 and ResNet of transformers."""

from pathlib import Path

from torch import nn
from transformers import AutoConfig, PvtV2Backbone, ResNetBackbone

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.hub import load_pretrained

_PVT = {"model_type": "pvt_v2", "num_attention_heads": [1, 2, 5, 8]}
_BOTTLENECK = {
    "model_type": "resnet",
    "embedding_size": 64,
    "hidden_sizes": [256, 512, 1024, 2048],
    "layer_type": "bottleneck",
}
_BASIC = {"model_type": "resnet", "embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"}

# Name -> where its ImageNet weights are published, and its layout (drop_path_rate as AVSBench trains with).
PUBLISHED = {
    "pvt_v2_b5": (
        "OpenGVLab/pvt_v2_b5",
        {
            **_PVT,
            "hidden_sizes": [64, 128, 320, 512],
            "depths": [3, 6, 40, 3],
            "mlp_ratios": [4, 4, 4, 4],
            "drop_path_rate": 0.1,
        },
    ),
    "pvt_v2_b0": (
        "OpenGVLab/pvt_v2_b0",
        {**_PVT, "hidden_sizes": [32, 64, 160, 256], "depths": [2, 2, 2, 2], "mlp_ratios": [8, 8, 4, 4]},
    ),
    "resnet50": ("microsoft/resnet-50", {**_BOTTLENECK, "depths": [3, 4, 6, 3]}),
    "resnet18": ("microsoft/resnet-18", {**_BASIC, "depths": [2, 2, 2, 2]}),
    # Small enough to learn from nothing on a small data set; nobody publishes weights for it.
    "resnet10": (None, {**_BASIC, "embedding_size": 32, "hidden_sizes": [32, 64, 128, 256], "depths": [1, 1, 1, 1]}),
}


def build_backbone(layout: dict) -> nn.Module:
    """A backbone of a layout (a transformers configuration as a dict), with random weights."""
    config = _config(layout)
    return _model_class(config)(config)


def load_backbone(name: str, random_weights: bool = False) -> nn.Module:
    """A backbone by name.

    Args:
        name: one of PUBLISHED, a folder that transformers saved a PVT-v2 or ResNet in, or the name of one on the hub.
        random_weights: only the layout; the weights are drawn anew.

    Raises:
        InputError: there is no such backbone, or its weights cannot be had.
    """
    if random_weights:
        if name not in PUBLISHED:
            raise InputError(f"With random weights the backbone is one of {', '.join(PUBLISHED)}, not {name!r}.")
        return build_backbone(PUBLISHED[name][1])
    if name == "resnet10":
        raise InputError(
            "There are no weights of resnet10 to start from: add --random-weights, or choose another --backbone."
        )
    source = PUBLISHED[name][0] if name in PUBLISHED and not Path(name).is_dir() else name

    def load(source, **where):
        config = _config(AutoConfig.from_pretrained(source, **where).to_dict())
        return _model_class(config).from_pretrained(source, config=config, use_safetensors=True, **where)

    remedy = (
        "give --backbone a folder that transformers saved such a model in, or train from nothing with --random-weights"
    )
    return load_pretrained(source, load, "picture backbone", remedy)


def layout_of(backbone: nn.Module) -> dict:
    """The layout of a backbone, as `build_backbone` takes it: what differs from transformers' defaults and decides its
    shape.
    """
    values = backbone.config.to_diff_dict()
    unimportant = (
        "architectures",
        "dtype",
        "torch_dtype",
        "id2label",
        "label2id",
        "transformers_version",
        "out_features",
        "out_indices",
        "stage_names",
    )
    return {name: value for name, value in values.items() if name not in unimportant and not name.startswith("_")}


def _config(layout: dict):
    config = AutoConfig.for_model(**layout)
    if config.model_type not in ("pvt_v2", "resnet"):
        raise InputError(f"The picture backbone should be a PVT-v2 or a ResNet, not {config.model_type!r}.")
    config.out_features = config.stage_names[-4:]
    return config


def _model_class(config):
    return {"pvt_v2": PvtV2Backbone, "resnet": ResNetBackbone}[config.model_type]
