"""VGGish, the papers' audio backbone: one embedding [128] a second, after the last ReLU.

Hershey et al., "CNN architectures for large-scale audio classification" (ICASSP 2017). Raw by default, as
the papers use it: non-negative, about two thirds zeros, mean 0.12 and maximum 4.5 over the released AVE
features. `options.pca` adds AudioSet's post-processing: PCA, clipped to +-2, in 256 steps.
"""

from functools import partial
from pathlib import Path

import torch
from torch import nn

from hdcid_cli.backbones.backbone import Backbone, Options
from hdcid_cli.backbones.network import Network
from hdcid_cli.backbones.vggish_input import vggish_parts
from hdcid_cli.backbones.weights import fill, find_weights, read_state
from hdcid_cli.core.files import file_digest
from hdcid_cli.core.torchaudio import check_torchaudio
from hdcid_cli.media.audio import RATE
from hdcid_cli.media.mel import mel_filterbank

WINDOW, HOP, FFT = 400, 160, 512  # 25 ms, 10 ms
BANDS, LOW, HIGH = 64, 125.0, 7500.0
OFFSET = 0.01
FRAMES = 96  # one example: the first 0.96 s of a second, as in the published AVE features
BLOCKS = ((64,), (128,), (256, 256), (512, 512))  # channels; each block ends in 2x2 max pooling
WIDTH = 128


def load(options: Options) -> Backbone:
    """The backbone with the weights `options.weights`, by default the published ones."""
    path = find_weights(options.weights or "vggish")
    with torch.device("meta"):
        module: nn.Module = VGGish()
    fill(module, read_state(path), path)
    digest = file_digest(path)
    module = nn.Sequential(LogMel(), module)
    if options.pca:
        pca = find_weights(options.pca)
        module.append(read_pca(pca))
        digest += f"+{file_digest(pca)}"
    network = Network(module, options, batch_on_cpu=16, batch_on_gpu=512)
    return Backbone(
        name="vggish-pca" if options.pca else "vggish",
        modality="audio",
        shape=(WIDTH,),
        prepare=partial(vggish_parts, seconds=options.seconds),
        network=network,
        batch_size=network.batch_size,
        weights=digest,
    )


class LogMel(nn.Module):
    """VGGish's front end: waves [n, 16000] in -1..1 at 16 kHz -> examples [n, 96, 64], a frame every 10 ms."""

    def __init__(self):
        super().__init__()
        transforms = check_torchaudio("VGGish").transforms
        self.spectra = transforms.Spectrogram(FFT, WINDOW, HOP, power=1, center=False)
        filters = torch.from_numpy(mel_filterbank(BANDS, FFT, RATE, LOW, HIGH)).float()
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        # torch puts a window into the middle of a longer transform; magnitudes do not mind where it lies.
        around = (FFT - WINDOW) // 2
        magnitudes = self.spectra(nn.functional.pad(waves, (around, around))).transpose(-2, -1)  # [n, frames, 257]
        return torch.log(magnitudes @ self.filters + OFFSET)[:, :FRAMES]


class VGGish(nn.Module):
    """The network under the names of the widely used PyTorch file: `features.*`, `embeddings.*`."""

    def __init__(self):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for block in BLOCKS:
            for width in block:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(6 * 4 * channels, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, WIDTH),
            nn.ReLU(inplace=True),
        )

    def forward(self, examples: torch.Tensor) -> torch.Tensor:
        """Log-mel examples [n, 96, 64] -> [n, 128]."""
        x = self.features(examples[:, None].to(self.features[0].weight.dtype))  # [n, 512, 6, 4]
        return self.embeddings(x.permute(0, 2, 3, 1).flatten(1))  # TensorFlow's order: channels last


class Whitening(nn.Module):
    """PCA of AudioSet's embeddings, clipped and in 256 steps: [n, 128] -> [n, 128], whole numbers 0..255.

    Under the names of the published file: `pca_eigen_vectors` [128, 128], `pca_means` [128, 1].
    """

    CLIP = 2.0

    def __init__(self):
        super().__init__()
        self.register_buffer("pca_eigen_vectors", torch.zeros(WIDTH, WIDTH))
        self.register_buffer("pca_means", torch.zeros(WIDTH, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x.to(self.pca_means.dtype) - self.pca_means[:, 0]) @ self.pca_eigen_vectors.T
        return ((x.clamp(-self.CLIP, self.CLIP) + self.CLIP) * (255 / (2 * self.CLIP))).round()


def read_pca(path: Path) -> Whitening:
    """The post-processing from its published file."""
    with torch.device("meta"):
        module = Whitening()
    fill(module, {name: torch.as_tensor(value) for name, value in read_state(path).items()}, path)
    return module
