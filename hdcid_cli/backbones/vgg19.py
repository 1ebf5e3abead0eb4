"""VGG19, the papers' video backbone: the last pooling layer [7, 7, 512], mean over the frames of each second.

Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition" (ICLR 2015),
configuration E. The preprocessing follows the weights: a Keras HDF5 file wants BGR minus the mean (Caffe's
way; the published AVE features were made so), a torchvision file wants RGB, scaled and standardised.
"""

from functools import partial
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import nn

from hdcid_cli.backbones.backbone import Backbone, Options
from hdcid_cli.backbones.network import Network
from hdcid_cli.backbones.weights import fill, find_weights, read_state
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import file_digest
from hdcid_cli.core.hdf5 import Unsound, judging, open_hdf5, own_dataset
from hdcid_cli.media.video import video_parts

SIZE = 224
BLOCKS = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)  # channels; each block ends in 2x2 max pooling

# What the network sees is (frame - mean) / spread, per RGB channel of 0..255.
TORCHVISION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
CAFFE_MEAN = (123.68, 116.779, 103.939)
# Convolutions, ReLU and pooling are homogeneous: with input and biases divided by this, so is the output. Caffe's
# activations reach the tens of thousands, near the limit of float16; a power of two leaves the digits alone.
CAFFE_GAIN = 64.0
# What a file may hold: numbers of a kernel (the largest has 512 x 512 x 9), and layers.
KERAS, MOST_WEIGHTS, MOST_LAYERS = "file of Keras' weights", 1 << 22, 64


def load(options: Options) -> Backbone:
    """The backbone with the weights `options.weights`, by default the published ones of Keras."""
    path = find_weights(options.weights or "vgg19")
    network = Network(read_vgg19(path), options, batch_on_cpu=1, batch_on_gpu=16, half=True)
    return Backbone(
        name=options.sampled("vgg19"),
        modality="video",
        shape=(7, 7, 512),
        prepare=partial(video_parts, seconds=options.seconds, fps=options.fps, size=SIZE),
        network=network,
        batch_size=network.batch_size,
        weights=file_digest(path),
        dtype="float16",
    )


class VGG19(nn.Module):
    """The convolutional part, under torchvision's parameter names.

    Args:
        mean, spread: what the weights want subtracted from the frames, and what they are then divided by.
        gain: the output is multiplied by this.
    """

    def __init__(self, mean=TORCHVISION[0], spread=TORCHVISION[1], gain: float = 1.0):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for block in BLOCKS:
            for width in block:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor(mean, device="cpu"), persistent=False)
        self.register_buffer("spread", torch.tensor(spread, device="cpu"), persistent=False)
        self.gain = gain

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames [n, fps, 224, 224, 3] uint8 RGB -> [n, 7, 7, 512], the mean over fps."""
        n, fps = frames.shape[:2]
        x = (frames.flatten(0, 1) - self.mean) / self.spread
        x = self.features(x.permute(0, 3, 1, 2).to(self.features[0].weight.dtype))  # channels last in memory throughout
        return self.gain * x.permute(0, 2, 3, 1).unflatten(0, (n, fps)).to(self.mean.dtype).mean(dim=1)


def read_vgg19(path: Path) -> VGG19:
    """The network from a Keras HDF5 file or one in torchvision's layout, whichever it is."""
    keras = h5py.is_hdf5(path)
    with torch.device("meta"):
        module = VGG19(CAFFE_MEAN, (CAFFE_GAIN,) * 3, CAFFE_GAIN) if keras else VGG19()
    fill(module, _keras_state(path, module) if keras else read_state(path), path)
    return module


def _keras_state(path: Path, module: VGG19) -> dict[str, torch.Tensor]:
    """Keras' kernels [height, width, in, out] for BGR as torchvision's [out, in, height, width] for RGB."""
    layers: dict[str, dict[int, np.ndarray]] = {}

    def collect(name, item):
        layer = next((part for part in name.split("/") if "_conv" in part), None)
        if layer and isinstance(item, h5py.Dataset) and item.ndim in (1, 4):
            own = own_dataset(item.file, item.name)
            if own.dtype.kind != "f" or own.size > MOST_WEIGHTS or len(layers) > MOST_LAYERS:
                raise Unsound(f"`{name}` is no kernel of such a network")
            layers.setdefault(layer, {})[item.ndim] = own[()].astype(np.float32)

    with open_hdf5(path, KERAS) as file, judging(path, KERAS):
        file.visititems(collect)
    convolutions = [name.rsplit(".", 1)[0] for name, parameter in module.named_parameters() if parameter.ndim == 4]
    if len(layers) != len(convolutions) or any(set(found) != {1, 4} for found in layers.values()):
        raise InputError(f"{path} is HDF5, but does not hold the {len(convolutions)} convolutions of Keras' VGG19.")
    state = {}
    for name, (_, found) in zip(convolutions, sorted(layers.items()), strict=True):  # block1_conv1, block1_conv2, ...
        kernel = found[4][:, :, ::-1] if not state else found[4]
        state[f"{name}.weight"] = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
        state[f"{name}.bias"] = torch.from_numpy(found[1] / CAFFE_GAIN)
    return state
