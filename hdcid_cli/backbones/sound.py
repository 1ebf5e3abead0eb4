"""Any encoder of sound that transformers loads: one vector a second.

A clip goes in whole, or in windows as long as the encoder can take; what comes out in steps of 20 to 300 ms is averaged
over each second. Spectra are made by the model's own feature extractor.

AST: the mean over frequencies of its patches. CLAP: the same of its last map. Wav2Vec2, HuBERT, WavLM and their like,
Whisper's encoder: their steps. `--pool cls`: each second by itself, as the one vector that the model sums it up in:
CLAP's embedding beside its texts, AST's two summary tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoFeatureExtractor

from hdcid_cli.backbones.backbone import Backbone, Options
from hdcid_cli.backbones.encoder import Encoder, open_encoder
from hdcid_cli.backbones.network import place, probe
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.hub import load_pretrained
from hdcid_cli.core.torchaudio import check_torchaudio
from hdcid_cli.media.audio import wave_parts

REMEDY = "name a sound encoder that transformers saved, or use vggish or logmel"
AST, CLAP, WHISPER = "audio-spectrogram-transformer", ("clap", "clap_audio_model"), "whisper"
SPECTRUM_HOP = 0.01  # seconds between the spectra that AST sees
# Seconds that an encoder of waves of any length gets at once: more than a clip, less than what attention to all of it
# could not hold.
WAVE_WINDOW = 30


def load(options: Options) -> Backbone:
    """The backbone for `options.model`, a folder or a name on the hub."""
    if options.pool not in (None, "mean", "cls"):
        raise InputError(f"Audio features are the mean of each second or its summary, not --pool {options.pool}.")
    encoder = open_encoder("audio", options, REMEDY)
    if encoder.config.model_type == AST:
        check_torchaudio(encoder.snapshot.name)
    extractor = load_pretrained(
        encoder.snapshot, partial(_extractor, encoder), "sound encoder", REMEDY, options.allow_pickle
    )
    network = SoundNetwork(encoder, extractor, options)
    return Backbone(
        name=options.described(encoder.snapshot.name),
        modality="audio",
        shape=(network.width,),
        prepare=partial(
            wave_parts,
            seconds=options.seconds,
            rate=network.rate,
            window=1 if options.pool == "cls" else network.window,
        ),
        network=network,
        batch_size=network.batch_size,
        weights=encoder.digest,
        revision=encoder.snapshot.revision,
    )


def _extractor(encoder: Encoder, folder: str, **where) -> Any:
    if not any(
        (encoder.snapshot.folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")
    ):
        raise ValueError("it has no preprocessor_config.json, which says how sound is prepared")
    extractor = AutoFeatureExtractor.from_pretrained(folder, **where)
    if not 1000 <= getattr(extractor, "sampling_rate", 0) <= 192_000:
        raise ValueError("its preprocessor_config.json names no sampling rate")
    return extractor


@dataclass(frozen=True)
class Steps:
    """Where the steps of an encoder's output lie in time: the middle of step j is at first + j * apart, in seconds."""

    first: float
    apart: float

    def weights(self, steps: int, seconds: int) -> np.ndarray:
        """[seconds, steps]: the mean over those in each second, or the step nearest to its middle if it has none."""
        middles = self.first + self.apart * np.arange(steps)
        inside = np.floor(middles) == np.arange(seconds)[:, None]
        nearest = np.abs(middles - (np.arange(seconds)[:, None] + 0.5)).argmin(axis=1)
        inside[np.arange(seconds), nearest] |= ~inside.any(axis=1)
        return (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)


class SoundNetwork:
    """Windows of sound to a vector a second.

    Args:
        encoder: of sound.
        extractor: its feature extractor, waves -> what the encoder takes.
        options: device, precision, batch size, layer and pooling.
    """

    def __init__(self, encoder: Encoder, extractor: Any, options: Options):
        self.encoder, self.extractor = encoder, extractor
        self.layer, self.summary = options.layer, options.pool == "cls"
        self.rate = int(extractor.sampling_rate)
        config = encoder.config
        self.padded = True  # the extractor makes all windows one length
        if config.model_type == AST:
            patch, stride = config.patch_size, config.time_stride
            self.window = int(extractor.max_length * SPECTRUM_HOP)
            self.steps = Steps(SPECTRUM_HOP * patch / 2, SPECTRUM_HOP * stride)
        elif config.model_type in CLAP:
            self.window = int(extractor.nb_max_samples // self.rate)
            steps = config.spec_size * config.spec_size // config.num_mel_bins  # of spectra, over the whole window
            steps //= config.patch_stride[1] * 2 ** (len(config.depths) - 1)
            self.steps = Steps(0.5 * self.window / steps, self.window / steps)
        elif config.model_type == WHISPER:
            self.window = int(extractor.chunk_length)
            apart = self.window / config.max_source_positions
            self.steps = Steps(apart / 2, apart)
        elif hasattr(config, "conv_stride"):
            self.window, self.padded = WAVE_WINDOW, False
            self.steps = _convolutions(config.conv_kernel, config.conv_stride, self.rate)
        else:
            raise InputError(f"{encoder.snapshot.name} ({config.model_type}) is of no family known here: {REMEDY}.")
        if self.window < 1:
            raise InputError(f"{encoder.snapshot.name} takes less than a second of sound at once: {REMEDY}.")
        self.device = place(encoder.module, options)
        self.dtype = next(encoder.module.parameters()).dtype
        self.batch_size = options.batch_size or (16 if self.device.type == "cuda" else 1)
        silence = np.zeros((1 if self.summary else min(2, self.window), self.rate), np.float32)
        self.width = probe(lambda: self._features([silence]), encoder.snapshot.name)[-1]

    def __call__(self, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
        """At most `batch_size` windows [seconds, rate] -> the vectors [seconds, width] float32 of each.

        Batches are filled up, and what is of another length than the window goes alone through an encoder that is not
        told where it ends: the vectors of a clip do not depend on which others it was computed with.
        """
        found: dict[int, np.ndarray] = {}
        together = [n for n, part in enumerate(parts) if self.padded or len(part) == self.window]
        alone = [[n] for n in range(len(parts)) if n not in together]
        for numbers in [together, *alone] if together else alone:
            waves = [parts[n] for n in numbers]
            if numbers is together:
                waves += [waves[0]] * (self.batch_size - len(waves))
            found |= dict(zip(numbers, self._features(waves).float().cpu().numpy(), strict=False))
        return [found[n][: len(part)] for n, part in enumerate(parts)]

    @torch.inference_mode()
    def _features(self, waves: list[np.ndarray]) -> Tensor:
        """Windows -> [n, seconds, width]; whatever a window holds, all sizes are the same."""
        inputs = self.extractor([wave.ravel() for wave in waves], sampling_rate=self.rate, return_tensors="pt")
        inputs = {name: value.to(self.device) for name, value in inputs.items() if name != "attention_mask"}
        for name, value in inputs.items():
            if value.is_floating_point():
                inputs[name] = value.to(self.dtype)
        if "is_longer" in inputs:  # CLAP's extractor sets one at random if all of them fit
            inputs["is_longer"] = torch.zeros_like(inputs["is_longer"], dtype=torch.bool)
        if self.summary:
            return self._summary(inputs)[:, None]
        steps = self._steps(self.encoder.hidden(self.layer, **inputs))
        weights = self.steps.weights(steps.shape[1], self.window if self.padded else len(waves[0]))
        return torch.from_numpy(weights).to(steps.device) @ steps.float()

    def _steps(self, states: Tensor) -> Tensor:
        """Hidden states -> [n, steps, width]."""
        config = self.encoder.config
        if config.model_type == AST:  # two summary tokens, then patches, frequency by frequency
            rows = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
            return states[:, 2:].unflatten(1, (rows, -1)).mean(dim=1)
        if config.model_type in CLAP:  # [n, width, frequencies, steps]
            if self.layer is not None:  # not unfolded yet: parts of the window lie one above the other
                parts = config.spec_size // config.num_mel_bins
                states = states.unflatten(2, (parts, -1)).transpose(2, 3).flatten(3)
            return states.mean(dim=2).transpose(1, 2)
        return states

    def _summary(self, inputs: dict[str, Tensor]) -> Tensor:
        if self.encoder.joint is not None:
            return self.encoder.joint(**inputs)
        if self.encoder.config.model_type == AST:
            return self.encoder.half(**inputs).pooler_output
        raise InputError(f"{self.encoder.snapshot.name} has no vector that sums up its input: leave out --pool cls.")


def _convolutions(kernels: Sequence[int], strides: Sequence[int], rate: int) -> Steps:
    """The steps of convolutions over a wave: how much sound the first sees, and how far apart they are."""
    reach, apart = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        reach += (kernel - 1) * apart
        apart *= stride
    return Steps(reach / 2 / rate, apart / rate)
