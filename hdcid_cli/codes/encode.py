"""A trained model's codes for every clip of a feature file, computed once and remembered."""

import contextlib
import hashlib
import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hdcid_cli.codes.checkpoint import Checkpoint
from hdcid_cli.core.errors import HdcidError, InputError
from hdcid_cli.core.features import FeatureFile
from hdcid_cli.core.files import atomic_path, open_regular
from hdcid_cli.core.progress import progress


@dataclass
class Codes:
    """Codes of N clips of one modality, K layers, S codes a segment and layer (1 but for rvq).

    indices: int32 [N, T, K, S]; quantized: float32 [N, T, K, D]; length: valid segments [N].
    """

    ids: list[str]
    length: np.ndarray
    indices: np.ndarray
    quantized: np.ndarray


def encode(checkpoint: Checkpoint, features: FeatureFile, batch_size: int = 256, cache: bool = True) -> Codes:
    """Codes of every clip in the file; the indices are kept in the checkpoint's `cache/`, keyed by both contents.

    A model without the modality, or features of another shape than it learned from, are InputErrors.
    """
    check_features(checkpoint, features)
    place = checkpoint.path / "cache" / f"{_key(checkpoint, features)}.npy"
    indices = _load(place, checkpoint, len(features), features.shape[0]) if cache else None
    if indices is None:
        indices = _indices(checkpoint, features, batch_size)
        if cache:
            _store(place, indices)
    return Codes(list(features.ids), features.length, indices, decode(checkpoint, indices, features.modality))


def check_features(checkpoint: Checkpoint, features: FeatureFile) -> None:
    """Raise InputError unless the model can read these features."""
    inputs = checkpoint.inputs
    if features.modality not in inputs:
        raise InputError(
            f"{checkpoint.path} knows {', '.join(inputs)}, not {features.modality}: pretrain with --modalities that "
            "include it."
        )
    expected = inputs[features.modality]
    if features.shape[1:] != expected:
        raise InputError(
            f"{features.name} holds {features.shape[1:]} a segment, but {checkpoint.path} learned from {expected}."
        )
    learned = checkpoint.learned(features.modality)
    if learned and learned.backbone and learned.backbone != features.backbone:
        raise InputError(
            f"{features.name} was made by {features.backbone}, but {checkpoint.path} learned from {learned.backbone} "
            "features."
        )


def decode(checkpoint: Checkpoint, indices: np.ndarray, modality: str) -> np.ndarray:
    """Quantized features of one modality's indices [N, T, K, S] -> float32 [N, T, K, D]."""
    parts = []
    for number, layer in enumerate(checkpoint.model.code_layers):
        index = torch.from_numpy(indices[:, :, number].astype(np.int64))
        device = next(layer.parameters()).device
        decoded = [layer.quantizer.decode(part.to(device), modality).float().cpu() for part in index.split(4096)]
        parts.append(torch.cat(decoded).numpy())
    return np.stack(parts, axis=2)


def _indices(checkpoint: Checkpoint, features: FeatureFile, batch_size: int) -> np.ndarray:
    model = checkpoint.model
    parameter = next(model.parameters())
    parts = []
    for start in progress(
        range(0, len(features), batch_size), description=f"encoding {features.modality}", unit="batch"
    ):
        array = features.read(range(start, min(start + batch_size, len(features))))
        x = torch.from_numpy(array).to(parameter.device, parameter.dtype)
        lengths = torch.from_numpy(features.length[start : start + len(x)])
        parts.append(model.encode(features.modality, x, lengths)[1].to(torch.int32).cpu().numpy())
    return np.concatenate(parts)


def _key(checkpoint: Checkpoint, features: FeatureFile) -> str:
    return hashlib.sha256(f"{checkpoint.digest} {features.digest}".encode()).hexdigest()[:32]


def _load(place: Path, checkpoint: Checkpoint, clips: int, steps: int) -> np.ndarray | None:
    """Codes that `_store` wrote for so many clips and segments; None if there are none, or not those."""
    try:
        with open_regular(place) as file:
            content = file.read()
        if zlib.crc32(content[:-4]) != int.from_bytes(content[-4:], "little"):
            return None
        indices = np.lib.format.read_array(io.BytesIO(content[:-4]), allow_pickle=False)
    except (InputError, OSError, ValueError, EOFError):
        return None
    quantizer = checkpoint.model.layers[0].quantizer
    shape = (clips, steps, checkpoint.settings.levels, quantizer.stages)
    if indices.shape != shape or indices.dtype != np.int32:
        return None
    fits = indices.size == 0 or 0 <= indices.min() <= indices.max() < quantizer.codes
    return indices if fits else None


def _store(place: Path, indices: np.ndarray) -> None:
    """Remember the indices, as NumPy stores them, with a checksum after; a checkpoint that cannot be written to is no
    reason to fail.
    """
    content = io.BytesIO()
    np.save(content, indices, allow_pickle=False)
    checksum = zlib.crc32(content.getbuffer()).to_bytes(4, "little")
    with contextlib.suppress(HdcidError, OSError), atomic_path(place) as temporary:
        temporary.write_bytes(content.getvalue() + checksum)
