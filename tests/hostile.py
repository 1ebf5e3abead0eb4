"""Generated damage for every reader of every command, and what must hold of the answer.

    python tests/hostile.py                        # 1,000 cases a group: half an hour on a core
    python tests/hostile.py toc encode --cases 50  # some groups, fewer cases

A case is a small world of files in which one or two are damaged (types swapped, keys missing, numbers huge, bytes
flipped, files cut, or something that is no file), and a command that reads them. The command runs in a forked process,
through `hdcid_cli.main.run`. It may cope (status 0, or 3 where a part is skipped), or refuse with status 2 and one
sentence that names the file. It must not crash, hang, take a gigabyte, show an internal error, or touch other files.

`test_hostile.py` does the same with a few cases a group.
"""

import argparse
import contextlib
import copy
import io
import json
import os
import pickle
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from media_files import grey, write_media
from segment_world import write_features as write_square_features
from segment_world import write_squares, write_tiny_checkpoint
from worlds import write_features

from hdcid_cli import main

SECONDS = 5  # of computing
BYTES = 1 << 30
HANGS = 60  # seconds of waiting for something that does not come
PAUSE = 0.005  # seconds between two looks at a case
INTERNAL = re.compile(
    r"Traceback|--debug for|\b[A-Z]\w*(Error|Exception|Iteration|Interrupt)\b|0x[0-9a-f]{6}|\bNoneType\b"
)

CLIPS = [f"c{number:02d}" for number in range(16)]
MELS = 128  # what logmel gives a second
TINY = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 16, 16, 16],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
}

# --- damage -------------------------------------------------------------------------------------------------------

NESTED: list = []
for _ in range(900):
    NESTED = [NESTED]
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
        b"x" * 100_000,
        b"[" * 100_000,
        b"- " * 9000,
    ]
    + [
        b'"',
        b",",
        b"\t",
        b":",
        b"{",
        b"&a [*a]",
        b"nan",
        b"-inf",
        b"1e999",
        b"9" * 5000,
        b"-5",
        b"../../x",
        b"\xed\xa0\x80",
    ]
)


@st.composite
def hurt_bytes(draw, content: bytes) -> bytes:
    """Something wrong with bytes whose meaning is not looked at."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 40)))
        match draw(st.sampled_from(["cut", "remove", "replace", "insert", "flip", "flip", "zero", "repeat", "append"])):
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
        cannot = contextlib.suppress(TypeError, ValueError, KeyError, OSError, RuntimeError, OverflowError)
        with np.errstate(all="ignore"), cannot, h5py.File(path, "r+") as file:
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


@dataclass(frozen=True)
class Case:
    arguments: tuple[str, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Group:
    """A command with what it reads.

    Args:
        runs: (arguments, files that may be damaged).
        written: patterns of what it may write.
        world: which of `WORLDS` it works in.
    """

    runs: tuple[tuple[str, tuple[str, ...]], ...]
    written: tuple[str, ...] = ()
    world: str = "small"

    @st.composite
    @staticmethod
    def cases(draw, self, world: Path) -> Case:
        line, files = draw(st.sampled_from(self.runs))
        changes = []
        for path in draw(st.lists(st.sampled_from(files), min_size=1, max_size=2, unique=True)):
            content, how = (world / path).read_bytes(), BY_MEANING.get(Path(path).suffix)
            kind = draw(st.sampled_from(["meaning"] * 6 * (how is not None) + ["bytes"] * 3 + ["none"]))
            if kind == "none":
                waits = path in ("records.jsonl", "timelines.jsonl")  # there a pipe is as good as a file
                changes.append(
                    Change(path, draw(st.sampled_from([name for name in NO_FILES if name != "fifo" or not waits])))
                )
            else:
                changes.append(Change(path, draw(how(content) if kind == "meaning" else hurt_bytes(content))))
        return Case(tuple(line.split()), tuple(changes))


# --- worlds and groups --------------------------------------------------------------------------------------------

FEATURES = ("features/audio.h5", "features/video.h5")
MODEL = tuple(f"checkpoints/m/{name}" for name in ("config.yaml", "model.safetensors", "toc.json"))
NOTES = ("checkpoints/m/clips.txt",)
CACHE = "checkpoints/m/cache/*"
TABLES = ("data/classify.csv", "data/localise.csv")

# Commands that take their options from a file, and what the file says.
CONFIGURED = {
    "toc": "device: cpu\njson: true\nkeep: 3\nlambda: 0.5\ncriterion: both\nmix: '3:1'\n",
    "encode": "device: cpu\njson: true\ntoc: none\nfeatures: features\n",
    "codes localise": "device: cpu\njson: true\nsplit: all\nmodalities: av\n",
    "info": "json: true\nfeatures: features\n",
    "report records.jsonl": "format: markdown\nmetrics: all\n",
    "retrieve": "device: cpu\nquery: a\ngallery: v\nclips: all\nby: codes\n",
    "cmg classify": "device: cpu\ntrain: a\ntest: v\nepochs: 1\nlr: 0.001\nbatch-size: 4\nseeds: 2\n",
    "pretrain": "device: cpu\nepochs: 1\ndim: 8\ncodebook: 6\nlr: 0.001\noutput: checkpoints/new\nalign: cpc\n",
    "extract sounds": "modality: audio\nbackbone: logmel\nfeatures: new\nworkers: 0\nseconds: 2\n",
}

GROUPS = {
    "info": Group(
        (("info features", FEATURES), ("info checkpoints/m", MODEL), ("info features/audio.h5", FEATURES[:1]))
    ),
    "toc": Group(
        (("toc checkpoints/m --keep 3 --device cpu", MODEL), ("toc --json --device cpu", MODEL)),
        ("checkpoints/m/toc.json",),
    ),
    "encode": Group(
        (
            ("encode --device cpu", (*FEATURES, *MODEL, "codes/audio.h5")),
            ("encode features/audio.h5 --toc none --device cpu", (*FEATURES[:1], *MODEL[:2])),
        ),
        ("codes/*", CACHE),
    ),
    "cmg": Group(
        (
            ("cmg classify --train a --test v --epochs 1 --device cpu", (*FEATURES, *MODEL, *NOTES, TABLES[0])),
            ("cmg localise --train v --test a --epochs 1 --device cpu", (*FEATURES, *MODEL, *NOTES, TABLES[1])),
            ("cmg classify --supervised --train a --test a --epochs 1 --device cpu", (FEATURES[0], TABLES[0])),
        ),
        (CACHE,),
    ),
    "retrieve": Group(
        (("retrieve --query a --gallery v --clips all --device cpu", (*FEATURES, *MODEL, *NOTES)),), (CACHE,)
    ),
    "codes": Group(
        (
            ("codes localise --split all --device cpu", (*FEATURES, *MODEL, *NOTES, TABLES[1])),
            ("codes --clip c03 --device cpu", (*FEATURES, *MODEL)),
        ),
        (CACHE,),
    ),
    "pretrain": Group(
        (
            (
                "pretrain --config recipe.yaml --epochs 2 -o checkpoints/m --device cpu",
                (*FEATURES, "recipe.yaml", "data/split.csv", *NOTES, "checkpoints/m/config.yaml")
                + ("checkpoints/m/state.pt", "checkpoints/m/state.pt", "checkpoints/m/metrics.jsonl"),
            ),
            (
                "pretrain --config recipe.yaml --epochs 1 -o checkpoints/new --device cpu",
                (*FEATURES, "recipe.yaml", "data/split.csv", *TABLES),
            ),
        ),
        ("checkpoints/m/*", "checkpoints/new/*", "checkpoints/latest"),
    ),
    "segment": Group(
        (
            (
                "segment --train a --test a --backbone tiny --random-weights --size 32 --width 16 --epochs 1"
                " --batch-size 3 --device cpu",
                ("features/audio.h5", "data/avs_s4/s4_meta_data.csv", "data/avs_s4/AVSBenchCategories2Prompts.csv")
                + ("data/avs_s4/s4_data/visual_frames/test/red/test000/test000_1.png",)
                + ("data/avs_s4/s4_data/gt_masks/test/red/test000/test000_1.png",)
                + ("checkpoints/tiny/config.yaml", "checkpoints/tiny/model.safetensors")
                + tuple(
                    f"checkpoints/segment-a/{name}" for name in ("config.yaml", "best-audio.safetensors", "state.pt")
                ),
            ),
            (
                "segment predict red.mp4 --query red.wav --device cpu",
                ("checkpoints/tiny/config.yaml", "checkpoints/tiny/model.safetensors")
                + tuple(f"checkpoints/segment-a/{name}" for name in ("config.yaml", "best-audio.safetensors")),
            ),
        ),
        ("checkpoints/segment-a/*", "checkpoints/tiny/cache/*", "segments/*"),
        world="squares",
    ),
    "report": Group(
        (
            ("report records.jsonl", ("records.jsonl",)),
            ("report records.jsonl --format latex --metrics all", ("records.jsonl",)),
            (
                "report records.jsonl --timelines timelines.jsonl --checkpoint checkpoints/m -o report.html",
                ("records.jsonl", "timelines.jsonl", *MODEL, "checkpoints/m/metrics.jsonl"),
            ),
        ),
        ("report.html",),
    ),
    "convert": Group(
        (
            ("convert features zips --modality audio -o out.h5", ("zips/a.zip", "zips/b.zip", "zips/c.zip")),
            ("convert features ave.h5 --modality a --annotations names.txt -o out.h5", ("ave.h5", "names.txt")),
            ("convert checkpoint published.pt -o checkpoints/new", ("published.pt",)),
        ),
        ("out.h5", ".out.h5.lock", "out.h5.part", "checkpoints/new/*", "checkpoints/latest"),
    ),
    "extract": Group(
        (
            (
                "extract sounds --modality audio --backbone logmel --workers 0 --features new",
                ("sounds/a.wav", "sounds/b.wav"),
            ),
            (
                "extract list.csv --modality audio --backbone logmel --workers 0 --features new",
                ("list.csv", "sounds/a.wav"),
            ),
            ("extract captions.csv --modality text --backbone hash --workers 0 --features new", ("captions.csv",)),
            ("extract sounds --modality audio --backbone logmel --workers 0 --features done", ("done/audio.h5",)),
            (
                "extract sounds --modality audio --backbone vggish --weights weights.pt --workers 0 --features new",
                ("weights.pt",),
            ),
        ),
        ("new/*", "done/*"),
    ),
    "synth": Group(
        (("synth synthetic --clips 20 --classes 2 --workers 1", ("synthetic/data/synth.yaml",)),),
        ("synthetic/*",),
        "synthetic",
    ),
    "config": Group(
        tuple(
            (f"{line} --config options/{line.split()[0]}.yaml", (f"options/{line.split()[0]}.yaml",))
            for line in CONFIGURED
        ),
        ("codes/*", CACHE, "new/*", "checkpoints/m/toc.json", "checkpoints/new/*", "checkpoints/latest"),
    ),
}


def hdcid(*arguments: object) -> str:
    """Run a command that must succeed; what it printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = main.run([str(argument) for argument in arguments], {"debug": True})
    assert status in (0, None), (arguments, status)
    return out.getvalue()


def make_small(folder: Path) -> None:
    """A world of two modalities, tables, a model, records, and what others publish."""
    os.chdir(folder)
    random = np.random.default_rng(0)
    write_features(folder / "features", ids=CLIPS)
    Path("data").mkdir()
    splits = ["train"] * 10 + ["val"] * 3 + ["test"] * 3
    rows = list(zip(CLIPS, splits, "abab" * 4, strict=True))
    Path("data/classify.csv").write_text("id,split,label\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))
    Path("data/localise.csv").write_text(
        "id,split,label,onset,offset\n" + "".join(f"{a},{b},{c},1,3.5\n" for a, b, c in rows)
    )
    Path("data/split.csv").write_text("id,split\n" + "".join(f"{a},{b}\n" for a, b, _ in rows))
    Path("recipe.yaml").write_text("dim: 8\ncodebook: 6\nlayers: 2\nbatch-size: 5\nlr: 0.001\nwarmup: 1\nseed: 3\n")
    hdcid("pretrain", "--config", "recipe.yaml", "--epochs", "1", "-o", "checkpoints/m", "--device", "cpu")
    hdcid("toc", "--keep", "4", "--device", "cpu")
    hdcid("encode", "--device", "cpu")
    shutil.rmtree("checkpoints/m/cache")
    command = ["cmg", "localise", "--test", "a", "--epochs", "1", "--device", "cpu", "--timelines", "timelines.jsonl"]
    Path("records.jsonl").write_text(hdcid(*command, "--train", "v", "--seeds", 3))
    shutil.rmtree("checkpoints/m/cache", ignore_errors=True)
    Path("options").mkdir()
    for line, text in CONFIGURED.items():
        Path(f"options/{line.split()[0]}.yaml").write_text(text)
    Path("zips").mkdir()
    for name, protocol in zip("abc", (0, 2, 4), strict=True):
        with zipfile.ZipFile(f"zips/{name}.zip", "w") as archive:
            archive.writestr(f"{name}.pkl", pickle.dumps(random.normal(size=(7, 4)).astype("f4"), protocol))
    with h5py.File("ave.h5", "w") as file:
        file["avadataset"] = random.normal(size=(4, 10, 6))
    lines = "".join(f"x&v{n}&good&0&9\n" for n in range(4))
    Path("names.txt").write_text("Category&VideoID&Quality&StartTime&EndTime\n" + lines)
    torch.save(published(), "published.pt")
    weights = {"features.0.weight": torch.zeros(4, 1, 3, 3), "features.0.bias": np.zeros(4, "f4")}
    torch.save(weights, "weights.pt")
    Path("sounds").mkdir()
    for name in "ab":
        write_wav(Path(f"sounds/{name}.wav"), random)
    Path("list.csv").write_text("id,path,start\none,sounds/a.wav,0\ntwo,sounds/b.wav,0.5\n")
    Path("captions.csv").write_text("id,caption\none,a dog barks\ntwo,rain on a roof\n")
    hdcid("extract", "sounds", "--modality", "audio", "--backbone", "logmel", "--workers", "0", "--features", "done")


def make_synthetic(folder: Path) -> None:
    """What `synth` makes, with nothing in videos and pictures."""
    from hdcid_cli.synth import make

    def touch(paths) -> None:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    os.chdir(folder)
    with (
        mock.patch.object(make, "write_video", lambda clip, folder: touch([make.video_path(folder, clip)])),
        mock.patch.object(make, "write_scene", lambda scene, folder: touch(make.scene_paths(folder, scene))),
    ):
        hdcid("synth", "synthetic", "--clips", "20", "--classes", "2", "--workers", "1")


def make_squares(folder: Path) -> None:
    """A data set of coloured squares, a model whose codes name the colours, and a segmenter trained on them."""
    os.chdir(folder)
    made = write_squares(folder / "data", {"train": 6, "val": 3, "test": 3})
    write_square_features(folder / "features", made, width=MELS)
    write_tiny_checkpoint(folder / "checkpoints" / "tiny", width=MELS)
    write_wav(Path("red.wav"), np.random.default_rng(0))
    write_media(Path("red.mp4"), [grey(9 * n) for n in range(10)], fps=5)
    line, _ = GROUPS["segment"].runs[0]
    hdcid(*line.split())


def write_wav(path: Path, random: np.random.Generator) -> None:
    samples = (3000 * random.normal(size=16000 * 2)).astype("<i2").tobytes()
    head = b"fmt " + (16).to_bytes(4, "little") + bytes.fromhex("0100010080 3e0000 007d0000 0200 1000".replace(" ", ""))
    body = head + b"data" + len(samples).to_bytes(4, "little") + samples
    path.write_bytes(b"RIFF" + (4 + len(body)).to_bytes(4, "little") + b"WAVE" + body)


def published(dim: int = 8, codes: int = 6) -> dict:
    """A file of the layout in which the authors publish DCID on sound and text, small, with random weights."""
    from hdcid_cli.models.hdcid import HDCID
    from hdcid_cli.models.settings import ModelSettings

    inputs = {"audio": (12,), "text": (10,)}
    made = ModelSettings(
        inputs=inputs,
        layers=1,
        dim=dim,
        codebook=codes,
        feedforward=16,
        text_hidden=5,
        specific={"audio": 12, "text": 10},
        standardize=False,
    )
    encoder, decoder, text = {}, {}, {}
    quantizer = {"codebook": "embedding", "count": "ema_count", "weight": "ema_weight", "unused": "unactivated_count"}
    for name, value in HDCID(made).state_dict().items():
        name = name.removeprefix("layers.0.")
        kind, modality, rest = (name.split(".", 2) + [""])[:3]
        if kind == "text_front":
            text[rest] = value
        elif kind == "quantizer":
            encoder[f"Cross_quantizer.{quantizer[modality]}"] = value[0]
        elif kind == "general":
            part = rest.replace("input.", "affine_matrix.").replace("transformer.", "encoder.")
            encoder[f"{modality}_self_att.{part}"] = value
        elif kind == "specific":
            encoder[f"{modality.capitalize()}_encoder.{rest.replace('linear.', f'{modality}_linear.')}"] = value
        elif kind == "decoder":
            part = rest.replace("output.", f"{modality}_rec.").replace("code.", f"{modality}_linear.")
            decoder[f"{modality.capitalize()}_decoder.{part}"] = value
    return {
        "Encoder_parameters": encoder,
        "Decoder_parameters": decoder,
        "Text_ar_lstm_parameters": text,
        "epoch": 4,
        "total_step": 2500,
    }


WORLDS: dict[str, Callable[[Path], None]] = {"small": make_small, "squares": make_squares, "synthetic": make_synthetic}


@contextlib.contextmanager
def world(name: str):
    """A folder with one of the worlds in it, made once a process and copied for each case."""
    from hdcid_cli.tasks.segmentation import backbones

    torch.set_num_threads(1)
    backbones.PUBLISHED.setdefault("tiny", ("nowhere", TINY))
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                WORLDS[name](Path(folder))
        finally:
            os.chdir(before)
        yield Path(folder)


# --- a case -------------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    """What a command did.

    Attributes:
        status: its exit status, negative for a signal that ended it.
        problems: what it should not have done; empty if all is well.
    """

    status: int
    said: str
    seconds: float
    peak: int
    problems: list[str] = field(default_factory=list)


def attempt(group: Group, case: Case, original: Path) -> Answer:
    """Run a case in a copy of its world, and judge the answer."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        place = Path(folder, "world")
        shutil.copytree(original, place, symlinks=True)
        before = Path.cwd()
        os.chdir(place)
        try:
            for change in case.changes:
                change.apply()
            files = snapshot(Path("."))
            answer = fork(case.arguments, Path(folder))
            left = snapshot(Path("."))
        finally:
            os.chdir(before)
        judge(answer, group, case, files, left, Path(folder, "out"))
        return answer


def snapshot(folder: Path) -> dict[str, tuple]:
    """{path: what changes when it is written to or replaced} of everything in a folder but folders."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            state = os.lstat(path)
            found[os.path.relpath(path, folder)] = (state.st_ino, state.st_size, state.st_mtime_ns, state.st_mode)
    return found


def fork(arguments: tuple[str, ...], folder: Path) -> Answer:
    """The command in a process of its own, ended if it hangs or grows."""
    child = os.fork()
    if child == 0:
        _run(arguments, folder)
    page, peak, why, waited = os.sysconf("SC_PAGE_SIZE"), 0, "", 0.0
    base = int(Path("/proc/self/statm").read_text().split()[1]) * page
    while True:
        done, raw, used = os.wait4(child, os.WNOHANG)
        if done:
            break
        computed = 0.0
        with contextlib.suppress(OSError, IndexError):
            peak = max(peak, int(Path(f"/proc/{child}/statm").read_text().split()[1]) * page - base)
            state, *rest = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            computed = sum(map(int, rest[10:12])) / os.sysconf("SC_CLK_TCK")
            if state != "R":  # on a busy machine a case may stand in line for minutes, and that is no fault of its own
                waited += PAUSE
        if waited > HANGS or computed > 4 * SECONDS or peak > 2 * BYTES:
            why = "grows" if peak > 2 * BYTES else "hangs"
            os.kill(child, signal.SIGKILL)
            _, raw, used = os.wait4(child, 0)
            break
        time.sleep(PAUSE)
    said = Path(folder, "err").read_text(encoding="utf-8", errors="replace")
    answer = Answer(os.waitstatus_to_exitcode(raw), said, used.ru_utime + used.ru_stime, max(peak, 0))
    if why:
        answer.problems.append(why)
    return answer


def _run(arguments: tuple[str, ...], folder: Path) -> None:
    """In the child: never returns."""
    status = 99
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for name, stream, descriptor in (("out", sys.stdout, 1), ("err", sys.stderr, 2)):
            with contextlib.suppress(ValueError, OSError):
                stream.flush()
            opened = os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600)
            os.dup2(opened, descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin = open(0, closefd=False)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
        status = main.run(list(arguments), {"debug": False})
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def judge(answer: Answer, group: Group, case: Case, before: dict, after: dict, out: Path) -> None:
    """Note what is wrong with an answer."""
    note, said = answer.problems.append, answer.said
    lines = [line for line in said.splitlines() if line]
    if answer.status not in (0, 2, 3) and not answer.problems:
        note(f"status {answer.status}")
    if INTERNAL.search(said):
        note("internal")
    if any(not character.isprintable() and character != "\n" for character in said):
        note("control characters")
    if answer.seconds > SECONDS:
        note("slow")
    if answer.peak > BYTES:
        note("memory")
    if answer.status == 2 and not any(line.startswith("warning: ") for line in lines[-1:]):
        error = lines[-1] if lines else ""
        if not re.match(r"(error|Error): .*[.)']$", error) or len(error) > 1000:
            note("no sentence")
        names = {name for change in case.changes for name in Path(change.path).parts}
        if "options" in names:  # a value in it is told by the option's name
            names.add("--")
        if not any(name in said for name in names) and "warning: skipped" not in said:
            note("does not name the file")
    if answer.status == 3 and not lines:
        note("skips in silence")
    if out.suffix != ".html" and answer.status in (0, 3) and case.arguments[0] not in ("report",):
        for line in out.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("{"):
                try:
                    json.loads(line, parse_constant=_no_number)
                except ValueError:
                    note("a record that is no JSON")
                    break
    for path in before.keys() | after.keys():
        if before.get(path) != after.get(path) and not any(Path(path).match(pattern) for pattern in _written(group)):
            note(f"touches {path}")


def _written(group: Group) -> tuple[str, ...]:
    deeper = tuple(f"{pattern}/*" for pattern in group.written if pattern.endswith("/*"))
    more = tuple(f"{pattern}/*/*" for pattern in group.written if pattern.endswith("/*"))
    return (*group.written, *deeper, *more)


def _no_number(name: str):
    raise ValueError(name)


# --- by hand ------------------------------------------------------------------------------------------------------


def sweep(name: str, original: Path, cases: int, number: int, keep: Path | None) -> Counter:
    """So many cases of a group in copies of its world; how many went wrong, by what."""
    group, found, total = GROUPS[name], Counter(), Counter()

    @settings(
        max_examples=cases,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @seed(number)
    @given(Group.cases(group, original))
    def go(case):
        answer = attempt(group, case, original)
        total[answer.status] += 1
        if answer.problems:
            found[", ".join(answer.problems)] += 1
            if keep is not None:
                _keep(keep / f"{name}-{sum(total.values()):04d}", case, answer)

    go()

    wrong = sum(found.values())
    print(
        f"{name:10} {sum(total.values()):5} cases, {wrong:4} fall short; statuses {dict(sorted(total.items()))}",
        flush=True,
    )
    for problem, count in found.most_common():
        print(f"{'':10} {count:5} {problem}", flush=True)
    return found


def _keep(folder: Path, case: Case, answer: Answer) -> None:
    """Write a case down, to look into it."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, change in enumerate(case.changes):
        if isinstance(change.content, bytes):
            (folder / f"{number}-{Path(change.path).name}").write_bytes(change.content)
    text = (
        f"{' '.join(case.arguments)}\n{case.changes}\n{answer.status} {answer.seconds:.1f} s {answer.peak >> 20} MiB\n"
    )
    (folder / "case.txt").write_text(f"{text}{answer.problems}\n{answer.said}", encoding="utf-8", errors="replace")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", default=list(GROUPS), help=", ".join(GROUPS))
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder to write the cases to that fall short")
    chosen = parser.parse_args()
    keep, wrong = chosen.keep and chosen.keep.resolve(), 0
    with contextlib.ExitStack() as stack:
        worlds: dict[str, Path] = {}
        for name in chosen.groups or GROUPS:
            kind = GROUPS[name].world
            worlds[kind] = worlds.get(kind) or stack.enter_context(world(kind))
            wrong += sum(sweep(name, worlds[kind], chosen.cases, chosen.seed, keep).values())
    sys.exit(1 if wrong else 0)
