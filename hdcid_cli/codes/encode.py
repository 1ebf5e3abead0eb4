"""A trained model's codes for every clip of a feature file, computed once and remembered."""

import contextlib
import hashlib
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hdcid_cli.codes.checkpoint import Checkpoint
from hdcid_cli.codes.toc import Selection, apply_toc
from hdcid_cli.core.errors import HdcidError, InputError
from hdcid_cli.core.features import FeatureFile
from hdcid_cli.core.files import atomic_path, open_regular
from hdcid_cli.core.loading import ClipReader, batches_on
from hdcid_cli.core.precision import matmul_precision
from hdcid_cli.core.progress import progress
from hdcid_cli.models.assembled import ENCODINGS

# Clips that are encoded, and decoded, together.
BATCH = 256
SLAB = 4096


@dataclass
class Codes:
    """Codes of N clips of one modality, K layers, S codes a segment and layer (1 but for rvq).

    Attributes:
        checkpoint, modality: the model whose codes they are, and of what.
        ids: names of the clips.
        length: [N] valid segments.
        indices: int32 [N, T, K, S].
    """

    checkpoint: Checkpoint
    modality: str
    ids: list[str]
    length: np.ndarray
    indices: np.ndarray

    def read(
        self, rows: Sequence[int] | np.ndarray, selection: Selection | None = None, layers: int | None = None
    ) -> np.ndarray:
        """Quantized features of some clips, all layers side by side, float32 [n, T, C]; looked up in the codebooks now.

        Args:
            selection: which channels of each layer; None for all.
            layers: read only so many, the first ones.
        """
        rows = np.asarray(rows, np.int64)
        found = None
        for start in range(0, max(1, len(rows)), SLAB):
            indices = self.indices[rows[start : start + SLAB], :, :layers]
            part = apply_toc(decode(self.checkpoint, indices, self.modality), selection)
            if found is None:
                found = np.empty((len(rows), *part.shape[1:]), part.dtype)
            found[start : start + SLAB] = part
        return found

    @property
    def by_book(self) -> np.ndarray:
        """Of each segment the codes of `checkpoint.books`, [N, T, books]."""
        books = self.checkpoint.books
        return self.indices[:, :, [book.layer - 1 for book in books], [max(0, book.block - 1) for book in books]]

    @property
    def quantized(self) -> np.ndarray:
        """Quantized features of all clips, float32 [N, T, K, D]: large, where there are many clips."""
        return decode(self.checkpoint, self.indices, self.modality)


def encode(
    checkpoint: Checkpoint,
    features: FeatureFile,
    batch_size: int = BATCH,
    cache: bool = True,
    each: str = "seconds",
) -> Codes:
    """Codes of every clip in the file; the indices are kept in the checkpoint's `cache/`, keyed by both contents.

    A model without the modality, or features of another shape than it learned from, are InputErrors.

    Args:
        each: what has a code of its own, one of ENCODINGS: of `clips` T is 1.
    """
    check_features(checkpoint, features)
    check_encoding(checkpoint, each)
    place = checkpoint.path / "cache" / f"{_key(checkpoint, features, each)}.npy"
    clips, steps = len(features), features.shape[0] if each == "seconds" else 1
    indices = _load(place, checkpoint, clips, steps) if cache else None
    if indices is None:
        indices = _indices(checkpoint, features, batch_size, each)
        if cache:
            _store(place, indices)
    length = np.minimum(features.length, steps)
    return Codes(checkpoint, features.modality, list(features.ids), length, indices)


def check_encoding(checkpoint: Checkpoint, each: str) -> None:
    """Raise InputError unless the model has codes for each of these."""
    known = checkpoint.model.encodings
    if each not in known:
        raise InputError(
            f"{checkpoint.path} ({checkpoint.settings.kind}) has {' and '.join(ENCODINGS[name] for name in known)}: "
            f"--codes {each} goes with --model fcid."
        )


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
    if not len(features):
        raise InputError(f"{features.name} holds no clip that could be read.")


def decode(checkpoint: Checkpoint, indices: np.ndarray, modality: str) -> np.ndarray:
    """Quantized features of one modality's indices [N, T, K, S] of the first K layers -> float32 [N, T, K, D]."""
    parts = []
    for number, layer in enumerate(checkpoint.model.code_layers[: indices.shape[2]]):
        index = torch.from_numpy(indices[:, :, number].astype(np.int64))
        device = next(layer.parameters()).device
        decoded = [layer.quantizer.decode(part.to(device), modality).float().cpu() for part in index.split(SLAB)]
        parts.append(torch.cat(decoded).numpy())
    return np.stack(parts, axis=2)


def _indices(checkpoint: Checkpoint, features: FeatureFile, batch_size: int, each: str) -> np.ndarray:
    model, name = checkpoint.model, features.modality
    encoding = model.encodings[each]
    parameter, lengths = next(model.parameters()), torch.from_numpy(features.length)
    reader = ClipReader({name: features}, features.ids, "none")
    batches = np.split(np.arange(len(features)), range(batch_size, len(features), batch_size))
    found = None
    with (
        matmul_precision(checkpoint.description.precision),
        progress(total=len(features), description=f"encoding {name}", unit="clip") as bar,
    ):
        for rows, batch in batches_on(parameter.device, reader, batches, parameter.dtype):
            part = encoding(name, batch[name], lengths[rows])[1]
            if found is None:  # on the device, so that no batch waits for the one before
                found = torch.empty((len(features), *part.shape[1:]), dtype=torch.int32, device=part.device)
            found[rows[0] : rows[-1] + 1] = part
            bar.update(len(rows))
    return found.cpu().numpy()


def _key(checkpoint: Checkpoint, features: FeatureFile, each: str) -> str:
    ways = [way for way in (each, checkpoint.reading) if way not in ("seconds", "row")]
    return hashlib.sha256(" ".join([checkpoint.digest, features.digest, *ways]).encode()).hexdigest()[:32]


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
    quantizer = checkpoint.model.code_layers[0].quantizer
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
