"""What makes a model learn: one setting at a time, on one's own features, chosen on clips that are not the test's.

    python examples/study.py WORLD... [--seeds 3] [--only NAME...] [--final NAME...]

A WORLD is a folder with features/ and data/, as the README's first commands make it; data/split.csv says train, val
and test. Every setting of SETTINGS is trained in it on part of the train and val clips and judged on the rest of them
(`ave` and `avvp`, both directions). The test clips are looked at with --final alone: of settings named then, trained
on all train clips. Records go to WORLD/study/*.jsonl, one file a run; what is there is not run again, so the study can
be interrupted, and continued with more settings. The table comes last.
"""

import argparse
import csv
import json
import shutil
from collections import defaultdict
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
    "smit,cmcm mixed": {"align": ("smit", "cmcm"), "mix": 0.5},
    "smit,seconds,cmcm mixed": {"align": ("smit", "seconds", "cmcm"), "mix": 0.5},
    "smit mixed, dropout 0.5": {"align": ("smit",), "mix": 0.5, "dropout": 0.5},
    "smit mixed, dim 256": {"align": ("smit",), "mix": 0.5, "dim": 256},
    "recommended": {"recipe": "recommended", "layers": 0, "dim": 256},
    "recommended, 1 layer": {"recipe": "recommended", "layers": 1},
}
# Of every 320 clips that are not to be tested: learned from, for the probe's epoch, for choosing between settings.
CHOOSE = {"train": 220, "val": 30, "test": 70}
TASKS = {"ave": ("precision", {}), "avvp": ("f1", {"localizer": "tcn"})}
COPIED = {"ave": ("Annotations.txt", "Categories.txt"), "avvp": ("AVVP_eval_*.csv", "*Categories.txt")}


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


def run(world: Path, stage: str, name: str, seed: int) -> list[dict]:
    """Records of one model, trained now or before."""
    kept = world / "study" / f"{stage}-{name}-{seed}.jsonl"
    if kept.exists():
        return hdcid.read_records(kept)
    rows = split_of(world, stage)
    data = prepare(world, stage, rows)
    learned = [row["video_id"] for row in rows if row["split"] == "train"]
    settings = {**PLAIN, **SETTINGS[name]}
    place = world / "study" / f"{stage}-{name}-{seed}"
    model = hdcid.pretrain(world / "features", place, "av", learned, seed=seed, **settings)
    records = []
    for train, test in (("v", "a"), ("a", "v")):
        for task, (_, probe) in TASKS.items():
            records += hdcid.cmg(task, model, train, test, world / "features", data, "none", **probe)
    kept.write_text("".join(json.dumps(record) + "\n" for record in records))
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description="What makes a model learn, one setting at a time.")
    parser.add_argument("world", type=Path, nargs="+", help="a folder with features/ and data/")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", choices=SETTINGS, nargs="+", default=list(SETTINGS), metavar="NAME")
    parser.add_argument("--final", choices=SETTINGS, nargs="+", default=[], metavar="NAME", help="judged on test clips")
    asked = parser.parse_args()
    stage, names = ("final", asked.final) if asked.final else ("choose", asked.only)
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for name in names:
        for seed in range(asked.seeds):
            for world in asked.world:
                for record in run(world, stage, name, seed):
                    if record["metric"] == TASKS[record["task"]][0]:
                        column = f"{world.name} {record['task']} {record['direction']}"
                        values[name, column].append(record["value"])
    columns = list(dict.fromkeys(column for _, column in values))
    print("| setting |", " | ".join(columns), "|")
    print("|---|" + "---|" * len(columns))
    for name in names:
        cells = [values[name, column] for column in columns]
        spread = [f" ± {stdev(found):.1f}" if len(found) > 1 else "" for found in cells]
        print(f"| {name} |", " | ".join(f"{mean(found):.1f}{more}" for found, more in zip(cells, spread)), "|")


if __name__ == "__main__":
    main()
