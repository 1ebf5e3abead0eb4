"""What generated damage does to a file: by what its bytes mean, to the bytes alone, or something that is no file."""

import contextlib
import copy
import io
import json
import os
import pickle
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
import yaml
from hypothesis import strategies as st

VALUES = st.sampled_from(
    [None, True, False, 0, -1, 1, 2, 3, 7, 10**6, 10**9, 10**12, 2**63 - 1, -(2**63), 10**30, 0.5, -0.5, 1.5, 1e308]
    + [
        float("nan"),
        float("inf"),
        "",
        "x",
        "x" * 5000,
        "\x1b[2J",
        "\u202e",
        "../../x",
        "/dev/zero",
        "a\0b",
        "é",
        "1e-3",
    ]
    + [
        "vq",
        "rvq:3",
        "rvq:0",
        "rvq:1000000000",
        "fsq",
        "fsq:2,2",
        "fsq:1000,1000,1000,1000",
        "fsq:x",
        "float64",
        "cuda",
    ]
    + ["mask", "softmax", "audio", "video", "text", "cpc", "128", "none", "stored", "hdcid-checkpoint", "logmel"]
    + [[], [[]], [1], [0], [-1], [10**9] * 3, [7, 7, 8], [12], ["a"], [0, 1, 2], [2, 1], [0.5], [None]]
    + [{}, {"a": 1}, {"audio": [12]}, {"audio": 10**9}, {"": None}, {"start": 0, "end": 1, "label": "a"}]
)
BYTES_INSERTED = st.sampled_from(
    [
        b"\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\r",
        b"\n\n",
        b"\x1b[2J",
        b"\xc2\x85",
        b"x" * 200_000,
        b"a,b\n" * 2000,
        b"[" * 100_000,
        b"- " * 9000,
    ]
    + [
        b'"',
        b",",
        b"\t",
        b"&",
        b";",
        b":",
        b"{",
        b"&a [*a]",
        b"nan",
        b"-inf",
        b"1e999",
        b"9" * 5000,
        b"-5",
        b"train",
        b"../../x",
        b"/dev/zero",
        b"\xed\xa0\x80",
    ]
)


@st.composite
def hurt_bytes(draw, content: bytes) -> bytes:
    """Something wrong with bytes whose meaning is not looked at."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 40)))
        kinds = ["cut", "remove", "replace", "insert", "flip", "flip", "zero", "swap", "repeat", "append"]
        match draw(st.sampled_from(kinds)):
            case "cut":
                content = content[:start]
            case "remove":
                content = content[:start] + content[end:]
            case "replace":
                content = content[:start] + draw(BYTES_INSERTED) + content[end:]
            case "insert":
                content = content[:start] + draw(BYTES_INSERTED) + content[start:]
            case "flip" if start < len(content):
                content = (
                    content[:start] + bytes([content[start] ^ 1 << draw(st.integers(0, 7))]) + content[start + 1 :]
                )
            case "zero":
                content = content[:start] + bytes(end - start) + content[end:]
            case "swap":
                lines = content.split(b"\n")
                one, other = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
                lines[one], lines[other] = lines[other], lines[one]
                content = b"\n".join(lines)
            case "repeat":
                content = content[:end] + content[start:]
            case "append":
                content += draw(BYTES_INSERTED)
    return content


def _places(tree, place=()):
    """Where there is something in lists and mappings, one in another."""
    yield place
    if isinstance(tree, (dict, list, tuple)) and len(place) < 6:
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            yield from _places(tree[key], (*place, key))


@st.composite
def hurt_tree(draw, tree, values=VALUES):
    """Values swapped, missing, added or renamed in lists and mappings."""
    tree = copy.deepcopy(tree)
    values = values.map(copy.deepcopy)  # a second change may be made inside what the first put in
    for _ in range(draw(st.integers(1, 2))):
        *way, key = draw(st.sampled_from([place for place in _places(tree) if place] or [("x",)]))
        parent = tree
        for step in way:
            parent = parent[step]
        if isinstance(parent, tuple):
            continue
        match draw(st.sampled_from(["swap", "swap", "swap", "remove", "rename", "add", "other"])):
            case "swap":
                parent[key] = draw(values)
            case "remove":
                del parent[key]
            case "rename" if isinstance(parent, dict):
                parent[draw(st.sampled_from(["x", "", "\x1b", "layers", "inputs", 3, "a" * 300]))] = parent.pop(key)
            case "add" if isinstance(parent, dict):
                parent[draw(st.sampled_from(["new", "model", "audio", "epoch", 5]))] = draw(values)
            case "add":
                parent.insert(0, draw(values))
            case "other":
                return draw(values)
    return tree


@st.composite
def hurt_yaml(draw, content: bytes) -> bytes:
    tree = draw(hurt_tree(yaml.safe_load(content)))
    text = yaml.safe_dump(tree, allow_unicode=True, sort_keys=False)
    extra = draw(
        st.sampled_from(["", "", "", "x: *a\n", "seed: 2024-01-01\n", "x: !!python/name:os.system\n", NESTING, BOMB])
    )
    return (text + extra).encode("utf-8", "surrogatepass")


NESTING = "x: " + "[" * 100_000 + "\n"
BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))


@st.composite
def hurt_json(draw, content: bytes) -> bytes:
    lines = content.splitlines()
    which = draw(st.integers(0, len(lines) - 1))
    lines[which] = json.dumps(draw(hurt_tree(json.loads(lines[which])))).encode()
    if draw(st.integers(0, 5)) == 0:
        lines.insert(
            which,
            draw(st.sampled_from([b"", b"{", b"[" * 100_000, b'{"a": "\\ud800"}', b"\xff", b"null", b"9" * 5000])),
        )
    return b"\n".join(lines) + b"\n"


ARRAYS = ("features", "length", "crc32", "ids", "indices", "avadataset")
# Some damage HDF5 does not let us do, such as -1 in a row of uint32.
CANNOT_BE_MADE = (ArithmeticError, TypeError, ValueError, KeyError, OSError, RuntimeError)


@st.composite
def hurt_hdf5(draw, content: bytes) -> bytes:
    """Attributes and data sets of other types and shapes, claims, links."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.h5")
        path.write_bytes(content)
        with np.errstate(all="ignore"), contextlib.suppress(*CANNOT_BE_MADE), h5py.File(path, "r+") as file:
            for _ in range(draw(st.integers(1, 2))):
                _edit_hdf5(draw, file)
        return path.read_bytes()


def _edit_hdf5(draw, file: h5py.File) -> None:
    if file.attrs and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(file.attrs)))
        match draw(st.sampled_from(["swap", "swap", "remove", "array", "bytes"])):
            case "swap":
                file.attrs[name] = draw(VALUES)
            case "remove":
                del file.attrs[name]
            case "array":
                file.attrs[name] = np.zeros(draw(st.sampled_from([(0,), (1,), (3, 3)])))
            case "bytes":
                file.attrs[name] = np.bytes_(b"\xff\xfe")
        return
    name = draw(st.sampled_from([name for name in ARRAYS if name in file]))
    old = file[name]
    if not isinstance(old, h5py.Dataset) or old.size > 10**6:  # hurt before
        return
    shape, dtype = old.shape, old.dtype
    kind = draw(
        st.sampled_from(["remove", "type", "shape", "claim", "values", "soft", "external", "group", "vlen", "packed"])
    )
    if kind == "values" and dtype.kind in "fiu":
        rows = draw(st.integers(0, len(old) - 1))
        old[rows] = draw(
            st.sampled_from([0, 1, 200, -1, 2**31 - 1] + ([np.nan, np.inf, 1e30] if dtype.kind == "f" else []))
        )
        return
    values = old[:]
    del file[name]
    match kind:
        case "type":
            wanted = draw(st.sampled_from(["f8", "f2", ">f4", "i8", "u1", "S3", "c8", "?"]))
            file[name] = values.astype(wanted) if dtype.kind in "fiu" else np.zeros(shape, wanted)
        case "shape":
            file.create_dataset(
                name, draw(st.sampled_from([(), (0,), (3,), (16, 1), (16, 0, 12), (16, 6, 13), (99, 6, 12)])), dtype
            )
        case "claim":
            rows = draw(st.sampled_from([10**6, 10**8, 10**12, 2**40]))
            file.create_dataset(name, (rows, *shape[1:]), dtype, chunks=(1, *shape[1:]) if shape[1:] else (1024,))
        case "soft":
            file[name] = h5py.SoftLink(draw(st.sampled_from(["/length", f"/{name}", "/nowhere"])))
        case "external":
            file[name] = h5py.ExternalLink("video.h5", name)
        case "group":
            file.create_group(name)
        case "vlen":
            text = draw(st.sampled_from(["x", "", "\x1b[2J", "é" * 50, "x" * 9000]))
            file.create_dataset(name, data=[text] * len(values), dtype=h5py.string_dtype())
        case "packed":
            chunk = (len(values), *shape[1:])
            file.create_dataset(name, data=values, compression=draw(st.sampled_from(["gzip", "lzf"])), chunks=chunk)


@st.composite
def hurt_safetensors(draw, content: bytes) -> bytes:
    """Another header, or numbers that are none."""
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    match draw(st.sampled_from(["header", "header", "numbers", "rename", "size"])):
        case "header":
            header = draw(hurt_tree(header))
        case "numbers":
            place = 4 * draw(st.integers(0, len(data) // 4 - 1))
            number = np.float32(draw(st.sampled_from([np.nan, np.inf, 1e38, 0]))).tobytes()
            data = data[:place] + number + data[place + 4 :]
        case "rename":
            names = [name for name in header if name != "__metadata__"]
            one, other = draw(st.sampled_from(names)), draw(st.sampled_from(names))
            header[one], header[other] = header[other], header[one]
        case "size":
            text = json.dumps(header).encode()
            return draw(st.sampled_from([0, 1, 2**40, 2**63, len(text) + 99])).to_bytes(8, "little") + text + data
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


TENSORS = st.sampled_from(
    [
        torch.zeros(()),
        torch.zeros(0),
        torch.zeros(3),
        torch.zeros(3, 3),
        torch.full((8,), torch.nan),
        torch.ones(2, 2, 2),
    ]
    + [
        torch.zeros(5, dtype=torch.uint8),
        torch.zeros(8, 12, dtype=torch.float16),
        torch.zeros(1).expand(1 << 20, 1 << 20),
    ]
)


@st.composite
def hurt_saved(draw, content: bytes) -> bytes:
    """What torch saved, with other values in it."""
    tree = torch.load(io.BytesIO(content), weights_only=False)
    out = io.BytesIO()
    torch.save(draw(hurt_tree(_plain(tree), VALUES | TENSORS)), out, _use_new_zipfile_serialization=draw(st.booleans()))
    return out.getvalue()


def _plain(tree):
    return {key: _plain(value) for key, value in tree.items()} if isinstance(tree, dict) else tree


class Runs:
    """Makes a file if it is unpickled freely."""

    def __reduce__(self):
        return open, ("ran", "w")


PICKLED = st.sampled_from([None, 3, "x", [1.0], {"a": 1}, Runs(), (1, 2)]) | st.builds(
    lambda shape, dtype: np.zeros(shape, dtype),
    st.sampled_from([(), (0, 4), (5,), (7, 4), (7, 5), (10, 3, 3), (1, 1, 1, 1)]),
    st.sampled_from(["f4", "f8", ">f4", "i8", "u1", "?", "S3", "O", "M8[s]", "c8", "V8", "f2"]),
)


@st.composite
def hurt_zip(draw, content: bytes) -> bytes:
    """A zip file with another pickle in it, or several, or packed in another way."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        inside = archive.read(archive.namelist()[0])
    if draw(st.booleans()):
        inside = draw(hurt_bytes(inside))
    else:
        inside = pickle.dumps(draw(PICKLED), draw(st.integers(0, 5)))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", draw(st.sampled_from([0, 8, 12, 14]))) as archive:
        for number in range(draw(st.sampled_from([1, 1, 1, 0, 2]))):
            archive.writestr(f"{number}/x.pkl" if number else "x.pkl", inside)
    return out.getvalue()


# Endings of files, and how a file of that kind is hurt where its meaning is looked at.
BY_MEANING = {
    ".yaml": hurt_yaml,
    ".json": hurt_json,
    ".jsonl": hurt_json,
    ".h5": hurt_hdf5,
    ".safetensors": hurt_safetensors,
    ".pt": hurt_saved,
    ".zip": hurt_zip,
}
NO_FILES = ("missing", "empty", "folder", "fifo", "loop", "endless")


@dataclass(frozen=True)
class Change:
    """A file, and what becomes of it: other bytes, or one of NO_FILES."""

    path: str
    content: bytes | str

    def apply(self) -> None:
        path = Path(self.path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        match self.content:
            case "missing":
                pass
            case "empty":
                path.touch()
            case "folder":
                path.mkdir()
            case "fifo":
                os.mkfifo(path)
            case "loop":
                path.symlink_to(path.name)
            case "endless":
                path.symlink_to("/dev/zero")
            case content:
                path.write_bytes(content)

    def __repr__(self):
        return f"{self.path}: {self.content if isinstance(self.content, str) else f'{len(self.content)} bytes'}"
