"""What grows with the number of clips: python tests/benchmarks/scale.py [--clips 10000,100000,1000000] [--steps ...]

Makes feature files of many tiny clips (two modalities, one vector a segment) and annotations of them, and does with
them, each in a process of its own, what a user does with large ones:

    write     feature files, row by row
    open      a file: names, lengths
    digest    of its content, from its checksums
    read      100 random batches of 80 clips, the first of which finds where the rows lie
    quick     `info --quick`
    info      all numbers and checksums
    start     `pretrain` up to its first step (files opened, clips matched, features read)
    pretrain  that, and `epoch`, the rest of one epoch, in batches of 2000, of a tiny model
    encode    codes of one modality
    cmg       a classification, two epochs of its probe
    retrieve  `--limit 2000`, by codes

Prints seconds of processor time, since machines are shared, the peak of memory above that of an idle process, and how
both grew from the first number of clips to the last: by which power of it. Nothing should grow faster than N log N,
whose power is about 1.1 here. Encode is needed by cmg and retrieve, and write by everything; an epoch of a million
clips takes a quarter of an hour.
"""

import argparse
import contextlib
import io
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

import hdcid_cli as hdcid
from hdcid_cli.commands.info import describe
from hdcid_cli.core.features import FeatureFile, FeatureWriter
from hdcid_cli.tasks.retrieval import RetrievalSettings, retrieve
from hdcid_cli.training import pretrain as pretraining
from hdcid_cli.training.speed import duration

STEPS, WIDTH, CLASSES = 2, 8, 10
MODALITIES = ("audio", "text")
MODEL = {"layers": 1, "dim": 8, "codebook": 32, "text_hidden": 0, "heads": 2, "transformer_layers": 1}
TRAIN = {"epochs": 1, "warmup": 0, "batch_size": 2000, "align": ("cpc",), "log_every": 10_000}


def names(clips: int) -> list[str]:
    return [f"clip{number:08d}" for number in range(clips)]


def write(clips: int) -> None:
    looks = np.random.default_rng(0).standard_normal((len(MODALITIES), CLASSES, STEPS, WIDTH)).astype(np.float16)
    for modality, rows in zip(MODALITIES, looks, strict=True):
        attributes = {"modality": modality, "backbone": "scale", "weights": "none", "segment_seconds": 1.0}
        path = f"features/{modality}.h5"
        with FeatureWriter(path, names(clips), (STEPS, WIDTH), attributes, "float16") as file:
            for number, name in enumerate(names(clips)):
                file.write(name, rows[number % CLASSES], STEPS)
            file.finish()
    Path("data").mkdir(exist_ok=True)
    splits = ("train", "val", "test")
    with open("data/classify.csv", "w") as table:
        table.write("id,label,split\n")
        for number, name in enumerate(names(clips)):
            table.write(f"{name},class{number % CLASSES},{splits[number // CLASSES % 3]}\n")


def audio() -> FeatureFile:
    return FeatureFile(["features/audio.h5"])


@contextlib.contextmanager
def clock(seconds: dict[str, float], name: str) -> Iterator[None]:
    begin = time.process_time()
    yield
    seconds[name] = time.process_time() - begin


def writing(clips: int, seconds: dict[str, float]) -> None:
    with clock(seconds, "write"):
        write(clips)


def opening(clips: int, seconds: dict[str, float]) -> None:
    with clock(seconds, "open"):
        file = audio()
    assert len(file) == clips
    with clock(seconds, "digest"):
        assert file.digest


def read(clips: int, seconds: dict[str, float]) -> None:
    batches = np.random.default_rng(0).integers(0, clips, (100, 80))
    with audio() as file, clock(seconds, "read"):
        for rows in batches:
            file.read(rows)


def quick(clips: int, seconds: dict[str, float]) -> None:
    with clock(seconds, "quick"):
        assert [record["clips"] for record in describe(Path("features"), quick=True)] == [clips] * len(MODALITIES)


def info(clips: int, seconds: dict[str, float]) -> None:
    with clock(seconds, "info"):
        assert all(record["sound"] for record in describe(Path("features")))


class Begun(Exception):
    """`pretrain` has come to its first step."""


def pretrain(clips: int, seconds: dict[str, float], epoch: bool = True) -> None:
    begun: list[float] = []
    loop = pretraining._loop

    def watched(*arguments) -> None:
        begun.append(time.process_time())
        if not epoch:
            raise Begun
        loop(*arguments)

    pretraining._loop = watched
    start = time.process_time()
    with contextlib.suppress(Begun):
        hdcid.pretrain("features", "checkpoints/scale", device="cpu", overwrite=True, **MODEL, **TRAIN)
    seconds["start"] = begun[0] - start
    if epoch:
        seconds["epoch"] = time.process_time() - begun[0]


def encode(clips: int, seconds: dict[str, float]) -> None:
    model = hdcid.open_checkpoint("checkpoints/scale", device="cpu")
    with clock(seconds, "encode"):
        assert hdcid.encode(model, audio()).indices.shape[:2] == (clips, STEPS)
    hdcid.encode(model, FeatureFile(["features/text.h5"]))


def cmg(clips: int, seconds: dict[str, float]) -> None:
    model = hdcid.open_checkpoint("checkpoints/scale", device="cpu")
    with clock(seconds, "cmg"):
        assert hdcid.cmg("classify", model, "audio", "text", epochs=2, batch_size=1024)


def retrieving(clips: int, seconds: dict[str, float]) -> None:
    model = hdcid.open_checkpoint("checkpoints/scale", device="cpu")
    asked = RetrievalSettings("codes", "all", limit=2000)
    with clock(seconds, "retrieve"):
        found = list(retrieve(model, audio(), FeatureFile(["features/text.h5"]), asked))
    assert found[0]["n"] == min(clips, 2000)


# What is measured in one process.
WAYS: dict[str, Callable[[int, dict[str, float]], None]] = {
    "write": writing,
    "open": opening,
    "read": read,
    "quick": quick,
    "info": info,
    "start": partial(pretrain, epoch=False),
    "pretrain": pretrain,
    "encode": encode,
    "cmg": cmg,
    "retrieve": retrieving,
}


def peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(way: str, clips: int) -> dict:
    """In this process, in the current folder: {"seconds": {name: seconds}, "memory": MiB}."""
    hdcid.open_checkpoint  # noqa: B018 - imports what all of them need
    seconds: dict[str, float] = {}
    before = peak()
    with contextlib.redirect_stderr(io.StringIO()):
        WAYS[way](clips, seconds)
    return {"seconds": seconds, "memory": peak() - before}


def apart(way: str, clips: int, folder: Path) -> dict:
    """The same in a process of its own."""
    program = [sys.executable, os.path.abspath(__file__), "--one", way, "--clips", str(clips)]
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{way} of {clips:,} clips failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def power(first: float, last: float, growth: float) -> str:
    """The power of the number of clips by which something grew; of what is hardly there nothing is said."""
    return f"{math.log(last / first) / math.log(growth):.2f}" if growth > 1 and first > 0.02 and last > 0 else "-"


def show(found: list[dict]) -> None:
    growth = found[-1]["clips"] / found[0]["clips"]
    print(
        " " * 10
        + "".join(f"{each['clips']:12,}" for each in found)
        + "       power   (processor seconds; memory in MiB)"
    )
    for name in found[0]["seconds"]:
        for label, kind, digits in ((name, "seconds", 2), ("  memory", "memory_mib", 0)):
            row = [each[kind][name] for each in found]
            shown = "".join(f"{value:12.{digits}f}" for value in row)
            print(f"{label:10}{shown}{power(row[0], row[-1], growth):>12}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", default="10000,100000")
    parser.add_argument(
        "--steps", default=",".join(way for way in WAYS if way != "start"), help="of " + ", ".join(WAYS)
    )
    parser.add_argument("--folder", type=Path, help="where to write (a temporary folder)")
    parser.add_argument("--json", action="store_true", help="the numbers, one object a number of clips")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    counts = [int(number) for number in arguments.clips.split(",")]
    if arguments.one:
        print(json.dumps(measure(arguments.one, counts[0])))
        return
    found: list[dict] = []
    for clips in counts:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            measured = {way: apart(way, clips, Path(folder)) for way in arguments.steps.split(",")}
        seconds = {name: value for each in measured.values() for name, value in each["seconds"].items()}
        memory = {name: each["memory"] for each in measured.values() for name in each["seconds"]}
        found.append({"clips": clips, "seconds": seconds, "memory_mib": memory})
        if arguments.json:
            print(json.dumps(found[-1]), flush=True)
    if not arguments.json:
        show(found)
        print(f"all of it: {duration(sum(sum(each['seconds'].values()) for each in found))}")


if __name__ == "__main__":
    main()
