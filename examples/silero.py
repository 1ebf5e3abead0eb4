#!/usr/bin/env python3
"""Features of a trained network without a download: Silero VAD's encoder of speech, a backbone in one file.

    pip install silero-vad                     # MIT; brings 1.2 MB of weights along
    python examples/silero.py videos/          # -> features/audio.h5, [10, 128] a clip
    hdcid pretrain ...                         # as with any other

Its four convolutions over spectra of 32 ms were trained to tell speech from everything else; a second is the mean over
its 31 windows. How to add a backbone is in CONTRIBUTING.md.
"""

import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

import hdcid_cli
from hdcid_cli.backbones import BACKBONES, Backbone, Options
from hdcid_cli.backbones.network import Network
from hdcid_cli.backbones.vggish_input import vggish_parts
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import file_digest

WINDOW, BEFORE, BEHIND = 512, 64, 64  # samples: what a step is about, what it sees of the one before, and mirrored


class Encoder(nn.Module):
    """Under the names of the package's file."""

    def __init__(self):
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        """Seconds of sound [n, 16000] at 16 kHz -> [n, 128]."""
        windows = F.pad(waves, (BEFORE, 0)).unfold(1, BEFORE + WINDOW, WINDOW)  # [n, 31, 576]
        x = F.pad(windows.flatten(0, 1), (0, BEHIND), "reflect")[:, None]
        real, imaginary = self.stft_conv(x.to(self.conv1.weight.dtype)).chunk(2, dim=1)
        x = (real**2 + imaginary**2).sqrt()
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = layer(x).relu()
        return x[..., 0].unflatten(0, windows.shape[:2]).mean(dim=1)


def load(options: Options) -> Backbone:
    """What `hdcid_cli` asks of a backbone; the package is found, not imported."""
    package = find_spec("silero_vad")
    if package is None or package.origin is None:
        raise InputError("The weights come with the package silero-vad: pip install silero-vad.")
    path = Path(package.origin).parent / "data" / "silero_vad_16k.safetensors"
    module = Encoder()
    module.load_state_dict({name: value for name, value in load_file(path).items() if name in module.state_dict()})
    network = Network(module, options, batch_on_cpu=16, batch_on_gpu=512)
    return Backbone(
        name="silero",
        modality="audio",
        shape=(128,),
        prepare=partial(vggish_parts, seconds=options.seconds),
        network=network,
        batch_size=network.batch_size,
        weights=file_digest(path),
    )


if __name__ == "__main__":
    BACKBONES["audio"]["silero"] = "silero"  # this file, which Python finds because it is the one that runs
    print(hdcid_cli.extract(sys.argv[1:] or ["videos"], "audio", backbone="silero").path)
