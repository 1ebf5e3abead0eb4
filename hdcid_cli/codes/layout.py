"""What a codes file holds beside a feature file's data sets; and the same for numpy alone, as arrays of one `.npz`."""

import zipfile
from pathlib import Path

import h5py
import numpy as np

from hdcid_cli.core.files import atomic_path, open_regular
from hdcid_cli.core.hdf5 import Unsound, attribute, judging, open_hdf5, own_dataset

# What a codes file holds for its readers; its checksums are HDF5's own affair.
DATASETS = ("features", "indices", "codebook", "columns", "length")
ATTRIBUTES = ("modality", "backbone", "weights", "segment_seconds", "toc")
ROWS = 256  # that are in memory at once
KIND = "codes file"


def describe_codes(path: Path) -> dict:
    """What a codes file holds, as a flat record; nothing of a feature file that is none.

    Raises:
        InputError: its data sets of codes do not fit each other.
    """
    with open_hdf5(path) as file, judging(path, KIND):
        if "indices" not in file:
            return {}
        indices = own_dataset(file, "indices")
        if indices.ndim != 4 or indices.dtype.kind not in "iu":
            raise Unsound("`indices` is not [clips, segments, layers, codes] of integers")
        said = {"layers": indices.shape[2], "codes_a_layer": indices.shape[3], "toc": str(attribute(file, "toc"))}
        if "columns" not in file:  # of before 0.2
            return said
        columns, codebook = own_dataset(file, "columns"), own_dataset(file, "codebook")
        width = own_dataset(file, "features").shape[-1]
        if columns.shape != (width, 2) or codebook.ndim != 3 or codebook.shape[-1] != width:
            raise Unsound("`columns`, `codebook` and `features` are not of the same columns")
        return {**said, "codebook": list(codebook.shape), "columns": describe_columns(columns[:])}


def describe_columns(columns: np.ndarray) -> str:
    """`1-128 layer 1, 129-256 layer 2` of (layer, channel) of each column, [C, 2]."""
    parts = []
    for layer in np.unique(columns[:, 0]):
        places = np.flatnonzero(columns[:, 0] == layer) + 1
        parts.append(f"{places[0]}-{places[-1]} layer {layer}")
    return ", ".join(parts)


def write_npz(source: Path, target: Path) -> None:
    """Copy a codes file that was just written to an `.npz`, atomically; nothing in it is pickled."""
    with (
        atomic_path(target) as temporary,
        h5py.File(source, "r") as file,
        zipfile.ZipFile(temporary, "w") as archive,
    ):
        _add(archive, "ids", np.array(file["ids"].asstr()[:], str))
        for name in ATTRIBUTES:
            _add(archive, name, np.array(file.attrs[name]))
        for name in DATASETS:
            _add(archive, name, file[name])


def holds_codes(path: Path) -> bool:
    """Whether a file is an archive as `write_npz` makes them."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            return {f"{name}.npy" for name in DATASETS} <= set(archive.namelist())
    except Exception:  # zipfile raises many kinds; whoever reads the file as something else says what is wrong
        return False


def _add(archive: zipfile.ZipFile, name: str, values: np.ndarray | h5py.Dataset) -> None:
    """One array, a few rows at a time."""
    header = {"shape": values.shape, "fortran_order": False, "descr": np.lib.format.dtype_to_descr(values.dtype)}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as out:
        np.lib.format.write_array_header_1_0(out, header)
        if values.ndim == 0:
            out.write(np.asarray(values[()]).tobytes())
        for start in range(0, len(values) if values.ndim else 0, ROWS):
            out.write(np.ascontiguousarray(values[start : start + ROWS]).data)
