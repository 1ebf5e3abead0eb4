"""Which commands are tried, and which files are damaged before each.

A case is one command in one small world with one or two files damaged.
"""

from dataclasses import dataclass
from pathlib import Path

from hostile_damage import BY_MEANING, NO_FILES, Change, hurt_bytes
from hypothesis import strategies as st


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


FEATURES = ("features/audio.h5", "features/video.h5")
MODEL = tuple(f"checkpoints/m/{name}" for name in ("config.yaml", "model.safetensors", "toc.json"))
NOTES = ("checkpoints/m/clips.txt",)
CACHE = "checkpoints/m/cache/*"
TABLES = ("data/classify.csv", "data/localise.csv")

# Commands that take their options from a file, and what the file says; those of pretrain's that keep it short are said
# here as well, as a file that says nothing is a good one.
CONFIGURED = {
    "toc": "device: cpu\njson: true\nkeep: 3\nlambda: 0.5\ncriterion: both\nmix: '3:1'\n",
    "encode": "device: cpu\njson: true\ntoc: none\nfeatures: features\n",
    "codes localise": "device: cpu\njson: true\nsplit: all\nmodalities: av\n",
    "info": "json: true\nfeatures: features\n",
    "report records.jsonl": "format: markdown\nmetrics: all\n",
    "retrieve": "device: cpu\nquery: a\ngallery: v\nclips: all\nby: codes\n",
    "cmg classify": "device: cpu\ntrain: a\ntest: v\nepochs: 1\nlr: 0.001\nbatch-size: 4\nseeds: 2\n",
    "pretrain --epochs 1 -o checkpoints/new": (
        "device: cpu\nepochs: 1\ndim: 8\ncodebook: 6\nlr: 0.001\noutput: checkpoints/new\nalign: cpc\n"
    ),
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
