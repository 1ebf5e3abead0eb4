"""The small worlds of files that commands are tried in."""

import contextlib
import io
import os
import pickle
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
import torch
from hostile_groups import CONFIGURED, GROUPS
from media_files import grey, write_media
from segment_world import TINY, write_squares, write_tiny_checkpoint
from segment_world import write_features as write_square_features
from worlds import write_features

from hdcid_cli import main

CLIPS = [f"c{number:02d}" for number in range(16)]
MELS = 128  # what logmel gives a second


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
