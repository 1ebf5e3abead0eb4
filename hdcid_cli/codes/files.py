"""A model's codes and quantized features as files, for a user's own task.

The file is a feature file (core/features.py): `features` [N, T, C] are the quantized features
of all layers side by side, on the channels that TOC selected, in float32; `backbone` names
the checkpoint and `weights` its digest. One data set more:

    indices     [N, T, K, S] int32: the code of each segment in K layers (S > 1 for rvq)
"""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FORMAT, VERSION, FeatureFile, feature_paths, open_features
from hdcid_cli.core.files import atomic_path


def encode_files(
    files: Sequence[Path],
    output: Path,
    toc: str = "stored",
    features: Path = Path("features"),
    checkpoint: Path | None = None,
    checkpoints: Path = Path("checkpoints"),
    device: str = "auto",
) -> Iterator[dict]:
    """Write one file an input; yield what was written.

    Args:
        files: feature files; none: all of the model's modalities in `features`.
        output: a folder, or the file to write for one input (a name that ends in .h5).
    """
    from hdcid_cli.codes.checkpoint import open_checkpoint
    from hdcid_cli.codes.encode import encode
    from hdcid_cli.codes.toc import apply_toc, resolve_toc

    opened = open_checkpoint(checkpoint, checkpoints, device)
    files = [FeatureFile([path]) for path in files] or list(_of_model(opened, features))
    one = output.suffix == ".h5"
    targets = [output if one else output / f"{file.modality}.h5" for file in files]
    if len(set(targets)) < len(targets):
        raise InputError(f"Several files would become {targets[0]}: encode them one by one with -o FILE.h5.")
    for file, target in zip(files, targets, strict=True):
        if target.resolve() in {path.resolve() for path in file.paths}:
            raise InputError(f"{target} is the input: choose another --output.")
        codes = encode(opened, file)
        selection = resolve_toc(toc, opened, "encode", file.modality)
        values = apply_toc(codes.quantized, selection).astype(np.float32)
        attributes = {
            "modality": file.modality,
            "backbone": f"codes of {opened.name} on {file.backbone}",
            "weights": opened.digest,
            "segment_seconds": file.segment_seconds,
            "toc": selection.label if selection else "none",
        }
        write_codes(target, codes.ids, codes.length, codes.indices, values, attributes)
        yield {
            "modality": file.modality,
            "clips": len(codes.ids),
            "file": str(target),
            "shape": list(values.shape[1:]),
            "codes used": [len(np.unique(codes.indices[:, :, layer, 0])) for layer in range(codes.indices.shape[2])],
            "checkpoint": opened.name,
        }


def write_codes(
    path: Path, ids: Sequence[str], length: np.ndarray, indices: np.ndarray, values: np.ndarray, attributes: dict
) -> None:
    """Write a feature file with `indices`, atomically.

    Args:
        indices: [N, T, K, S].
        values: [N, T, C].
    """
    import h5py

    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update({"format": FORMAT, "version": VERSION, **attributes})
        file["ids"] = np.array(list(ids), dtype=h5py.string_dtype())
        file["length"] = np.asarray(length, np.int32)
        file["crc32"] = np.array([zlib.crc32(clip.tobytes()) for clip in values], np.uint32)
        file.create_dataset("features", data=values, chunks=(1, *values.shape[1:]))
        file.create_dataset("indices", data=indices.astype(np.int32))


def _of_model(checkpoint, features: Path) -> Iterator[FeatureFile]:
    """The feature files of the model's modalities that are there; none -> InputError."""
    names = [
        name
        for name in checkpoint.config["model"]["inputs"]
        if all(path.exists() for path in feature_paths(features, name))
    ]
    if not names:
        raise InputError(
            f"{features} holds no features of {', '.join(checkpoint.config['model']['inputs'])}: make them with "
            "`hdcid extract`."
        )
    return (open_features(features, name) for name in names)
