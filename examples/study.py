"""What makes a model learn: one setting at a time, on one's own features, chosen on clips that are not the test's.

    python examples/study.py WORLD... [--seeds 3] [--only NAME...] [--final NAME...] [--clips N...] [--mismatched P...]

A WORLD is a folder with features/ and data/, as the README's first commands make it; data/split.csv says train, val
and test. Every setting of SETTINGS is trained in it on part of the train and val clips and judged on the rest of them
(`ave` and `avvp`, both directions). The test clips are looked at with --final alone: of settings named then, trained
on all train clips. Records go to WORLD/study/*.jsonl, one file a run; what is there is not run again, so the study can
be interrupted, and continued with more settings. The table comes last.

`--clips 50 100 200` pretrains on so many of the clips alone, `--mismatched 0 20 40 60` on clips of which that many in a
hundred have the sound of another one; the probes learn from all clips, as they are. Both are numbers in the records:

    hdcid report WORLD/study/final-*.jsonl --over pretrain_clips --figures figures
    hdcid report WORLD/study/final-*.jsonl --over mismatched_percent --figures figures
"""

import argparse
import csv
import json
import shutil
from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean, stdev

import numpy as np

import hdcid_cli as hdcid

PLAIN = {"layers": 0, "dim": 64, "validate_every": 0}
SETTINGS = {
    "cpc,cmcm": {"align": ("cpc", "cmcm")},
    "cpc,cmcm mixed": {"align": ("cpc", "cmcm"), "mix": 0.5},
    "smit": {"align": ("smit",)},
    "smit mixed": {"align": ("smit",), "mix": 0.5},
    "seconds": {"align": ("seconds",)},
    "seconds mixed": {"align": ("seconds",), "mix": 0.5},
    "smit,seconds mixed": {"align": ("smit", "seconds"), "mix": 0.5},
    "smit,seconds mixed, softmax": {"align": ("smit", "seconds"), "mix": 0.5, "spatial_attention": "softmax"},
    "fcmi mixed": {"align": ("fcmi",), "mix": 0.5},
    "fcmi,seconds mixed, softmax": {"align": ("fcmi", "seconds"), "mix": 0.5, "spatial_attention": "softmax"},
    "fcmi,seconds mixed, softmax, cells": {
        "align": ("fcmi", "seconds"),
        "mix": 0.5,
        "spatial_attention": "softmax",
        "cell_hidden": 256,
    },
    "smit,fcmi,seconds mixed, softmax": {
        "align": ("smit", "fcmi", "seconds"),
        "mix": 0.5,
        "spatial_attention": "softmax",
    },
    "smit,cmcm mixed": {"align": ("smit", "cmcm"), "mix": 0.5},
    "smit,seconds,cmcm mixed": {"align": ("smit", "seconds", "cmcm"), "mix": 0.5},
    "smit mixed, dropout 0.5": {"align": ("smit",), "mix": 0.5, "dropout": 0.5},
    "smit mixed, dim 256": {"align": ("smit",), "mix": 0.5, "dim": 256},
    "recommended": {"recipe": "recommended", "layers": 0, "dim": 256},
    "recommended, 1 layer": {"recipe": "recommended", "layers": 1},
    "recommended, rvq": {"recipe": "recommended", "quantizer": "rvq:2"},
    "recommended, fsq": {"recipe": "recommended", "quantizer": "fsq"},
    "recommended, aligned": {"recipe": "recommended", "quantizer": "aligned"},
    "recommended, pq:4": {"recipe": "recommended", "quantizer": "pq:4"},
}
# Of every 320 clips that are not to be tested: learned from, for the probe's epoch, for choosing between settings.
CHOOSE = {"train": 220, "val": 30, "test": 70}
# What a model is judged by, and the probes that judge: of clips by the published maximum, and by the mean.
METRICS = {"ave": "precision", "avvp": "f1"}
PROBES = (("ave", {}), ("ave", {"classifier": "mean"}), ("avvp", {"localizer": "tcn"}))
COPIED = {"ave": ("Annotations.txt", "Categories.txt"), "avvp": ("AVVP_eval_*.csv", "*Categories.txt")}


@dataclass(frozen=True)
class Case:
    """One model: a setting, and on how many clips (None: all), of which so many in a hundred are mismatched."""

    name: str
    clips: int | None = None
    mismatched: int = 0
    seed: int = 0

    @property
    def label(self) -> str:
        """The setting, and what is scarce or wrong."""
        number = "" if self.clips is None else f", {self.clips} clips"
        return self.name + number + (f", {self.mismatched} % mismatched" if self.mismatched else "")


def split_of(world: Path, stage: str) -> list[dict[str, str]]:
    """Rows of the split: the world's own, or one of its train and val clips alone."""
    with open(world / "data" / "split.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if stage == "final":
        return rows
    rest = [row for row in rows if row["split"] != "test"]
    bounds = np.cumsum(list(CHOOSE.values())) / sum(CHOOSE.values())
    for place, row in zip(np.random.default_rng(0).permutation(len(rest)), rest, strict=True):
        row["split"] = list(CHOOSE)[int(np.searchsorted(bounds, (place + 0.5) / len(rest)))]
    return rest


def prepare(world: Path, stage: str, rows: list[dict[str, str]]) -> Path:
    """The world's tables under another split."""
    folder = world / "study" / f"{stage}-data"
    for task, patterns in COPIED.items():
        (folder / task).mkdir(parents=True, exist_ok=True)
        for source in {path for pattern in patterns for path in (world / "data" / task).glob(pattern)}:
            shutil.copy(source, folder / task)
        with open(folder / task / "split.csv", "w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return folder


def chosen(world: Path, rows: list[dict[str, str]], case: Case) -> list[str]:
    """Names of the clips to pretrain on: all of the train split, or some drawn by the seed, fewer ones among more."""
    learned = [row["video_id"] for row in rows if row["split"] == "train"]
    if case.clips is None:
        return learned
    if case.clips > len(learned):
        raise SystemExit(f"{world} has {len(learned)} clips to learn from, not {case.clips}.")
    return np.random.default_rng(case.seed).permutation(learned)[: case.clips].tolist()


def mismatched(features: Path, folder: Path, learned: list[str], case: Case) -> Path:
    """A folder of features where some of the clips to learn from have the sound of the next one among those."""
    share = round(len(learned) * case.mismatched / 100)
    names = np.random.default_rng(case.seed).permutation(learned)[:share].tolist()
    owner = dict(zip(names, names[1:] + names[:1], strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    with hdcid.open_features(features, "audio") as audio:
        hdcid.write_features(
            folder / "audio.h5",
            [owner.get(name, name) for name in audio.ids],
            audio.read(range(len(audio))),
            "audio",
            audio.length,
            audio.backbone,
            audio.segment_seconds,
        )
    for path in features.glob("video*.h5"):
        (folder / path.name).unlink(missing_ok=True)
        (folder / path.name).symlink_to(path.resolve())
    return folder


def run(world: Path, stage: str, case: Case) -> list[dict]:
    """Records of one model, trained now or before."""
    kept = world / "study" / f"{stage}-{case.label}-{case.seed}.jsonl"
    if kept.exists():
        return hdcid.read_records(kept)
    rows = split_of(world, stage)
    data, features = prepare(world, stage, rows), world / "features"
    learned, place = chosen(world, rows, case), kept.with_suffix("")
    source = mismatched(features, Path(f"{place}-features"), learned, case) if case.mismatched else features
    model = hdcid.pretrain(source, place, "av", learned, seed=case.seed, **{**PLAIN, **SETTINGS[case.name]})
    records = []
    for train, test in (("v", "a"), ("a", "v")):
        for task, probe in PROBES:
            records += hdcid.cmg(task, model, train, test, features, data, "none", **probe)
    lines = [json.dumps(record | {"mismatched_percent": case.mismatched}) + "\n" for record in records]
    kept.write_text("".join(lines))
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description="What makes a model learn, one setting at a time.")
    parser.add_argument("world", type=Path, nargs="+", help="a folder with features/ and data/")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", choices=SETTINGS, nargs="+", default=list(SETTINGS), metavar="NAME")
    parser.add_argument("--final", choices=SETTINGS, nargs="+", default=[], metavar="NAME", help="judged on test clips")
    parser.add_argument("--clips", type=int, nargs="+", default=[None], metavar="N", help="clips to pretrain on")
    parser.add_argument("--mismatched", type=int, nargs="+", default=[0], metavar="P", help="percent with wrong sound")
    asked = parser.parse_args()
    stage, names = ("final", asked.final) if asked.final else ("choose", asked.only)
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for fields in product(names, asked.clips, asked.mismatched, range(asked.seeds)):
        case = Case(*fields)
        for world in asked.world:
            for record in run(world, stage, case):
                if record["metric"] == METRICS[record["task"]]:
                    probe = " by mean" * (record.get("classifier") == "mean")
                    column = f"{world.name} {record['task']}{probe} {record['direction']}"
                    values[case.label, column].append(record["value"])
    columns = list(dict.fromkeys(column for _, column in values))
    print("| setting |", " | ".join(columns), "|")
    print("|---|" + "---|" * len(columns))
    for name in dict.fromkeys(label for label, _ in values):
        cells = [values[name, column] for column in columns]
        spread = [f" ± {stdev(found):.1f}" if len(found) > 1 else "" for found in cells]
        print(f"| {name} |", " | ".join(f"{mean(found):.1f}{more}" for found, more in zip(cells, spread)), "|")


if __name__ == "__main__":
    main()
