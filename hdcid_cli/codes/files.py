"""A model's codes and quantized features as files, for a user's own task.

The file is a feature file (core/features): `features` [N, T, C] are the quantized features
of all layers side by side, on the channels that TOC selected, in float32; `backbone` names
the checkpoint and `weights` its digest. Three data sets more:

    indices     [N, T, K, S] int32: the code of each segment in K layers (S > 1 for rvq)
    columns     [C, 2] int32: layer (from 1) and channel (from 0) of each column of `features`
    codebook    [S, L, C] float32: what each code says in each column; the features are the sum over S
"""

import os
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from hdcid_cli.codes.checkpoint import Checkpoint, open_checkpoint
from hdcid_cli.codes.columns import codebook, columns
from hdcid_cli.codes.encode import SLAB, Codes, check_features, encode
from hdcid_cli.codes.layout import holds_codes, write_npz
from hdcid_cli.codes.toc import Selection, resolve_toc
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureFile, feature_paths, open_features
from hdcid_cli.core.features.layout import write_layout
from hdcid_cli.core.files import atomic_path, open_regular
from hdcid_cli.core.hdf5 import create_hdf5


def encode_files(
    files: Sequence[Path],
    output: Path,
    toc: str = "stored",
    features: Path = Path("features"),
    checkpoint: Path | None = None,
    checkpoints: Path = Path("checkpoints"),
    device: str = "auto",
    format: str = "h5",
) -> Iterator[dict]:
    """Write one file an input; yield what was written.

    Args:
        files: feature files; none: all of the model's modalities in `features`.
        output: a folder, or the file to write for one input (a name that ends in .h5 or .npz). What is there is
            replaced if it holds codes, and refused if not.
        format: of the files in a folder, "h5" or "npz".
    """
    opened = open_checkpoint(checkpoint, checkpoints, device)
    inputs = [FeatureFile([path]) for path in files] or list(_of_model(opened, features))
    one = output.suffix in (".h5", ".npz")
    targets = [output if one else output / f"{file.modality}.{format}" for file in inputs]
    if len(set(targets)) < len(targets):
        raise InputError(f"Several files would become {targets[0]}: encode them one by one with -o FILE.{format}.")
    for file, target in zip(inputs, targets, strict=True):
        if os.path.realpath(target) in map(os.path.realpath, file.paths):
            raise InputError(f"{target} is the input: choose another --output.")
        check_features(opened, file)
        _refuse_other(target)
    for file, target in zip(inputs, targets, strict=True):
        codes = encode(opened, file)
        selection = resolve_toc(toc, opened, "encode", file.modality)
        attributes = {
            "modality": file.modality,
            "backbone": f"codes of {opened.name} on {file.backbone}",
            "weights": opened.digest,
            "segment_seconds": file.segment_seconds,
            "toc": selection.label if selection else "none",
        }
        if target.suffix == ".npz":
            with tempfile.TemporaryDirectory(prefix="hdcid-") as folder:
                shape = write_codes(Path(folder, "codes.h5"), codes, selection, attributes)
                write_npz(Path(folder, "codes.h5"), target)
        else:
            shape = write_codes(target, codes, selection, attributes)
        yield {
            "modality": file.modality,
            "clips": len(codes.ids),
            "file": str(target),
            "shape": list(shape),
            "codes used": [
                int(np.count_nonzero(np.bincount(each.ravel()))) for each in np.moveaxis(codes.by_book, 2, 0)
            ],
            "checkpoint": opened.name,
        }


def write_codes(path: Path, codes: Codes, selection: Selection | None, attributes: dict) -> tuple[int, ...]:
    """Write a feature file with `indices`, `columns` and `codebook`, atomically; return the shape of a clip, (T, C).

    Args:
        selection: the channels that count; None for all.
        attributes: of the feature file, and more.
    """
    clips, shape = len(codes.ids), codes.read([0], selection).shape[1:]
    checksums = np.zeros(clips, np.uint32)
    with atomic_path(path) as temporary, create_hdf5(temporary) as file:
        features = file.create_dataset("features", (clips, *shape), np.float32, chunks=(1, *shape))
        for start in range(0, clips, SLAB):
            rows = np.arange(start, min(start + SLAB, clips))
            values = np.ascontiguousarray(codes.read(rows, selection), np.float32)
            checksums[rows] = [zlib.crc32(clip.data) for clip in values]
            features[start : start + len(rows)] = values
        write_layout(file, codes.ids, codes.length, checksums, attributes)
        file.create_dataset("indices", data=codes.indices.astype(np.int32))
        file.create_dataset("columns", data=columns(codes.checkpoint, selection))
        file.create_dataset("codebook", data=codebook(codes.checkpoint, codes.modality, selection))
    return shape


def _refuse_other(target: Path) -> None:
    """Raise InputError if a file that was not made here would be replaced."""
    if not os.path.isfile(target):
        return
    open_regular(target).close()
    if target.suffix == ".npz" and holds_codes(target):
        return
    try:
        with h5py.File(target, "r", locking=False) as file:
            ours = isinstance(file.get("indices", getlink=True), h5py.HardLink)
    except Exception:  # HDF5 has many kinds for what is no HDF5
        ours = False
    if not ours:
        raise InputError(f"{target} exists and holds no codes: choose another --output.")


def _of_model(checkpoint: Checkpoint, features: Path) -> Iterator[FeatureFile]:
    """The feature files of the model's modalities that are there; none -> InputError."""
    names = [name for name in checkpoint.inputs if all(path.exists() for path in feature_paths(features, name))]
    if not names:
        raise InputError(
            f"{features} holds no features of {', '.join(checkpoint.inputs)}: make them with `hdcid extract`."
        )
    return (open_features(features, name) for name in names)
