"""One experiment from start to end: queries, training, test, records."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import torch

from hdcid_cli.codes.checkpoint import Checkpoint
from hdcid_cli.codes.toc import Selection
from hdcid_cli.core.device import resolve_device
from hdcid_cli.core.features import open_features
from hdcid_cli.core.modalities import letter
from hdcid_cli.core.names import count_of_recordings, recording
from hdcid_cli.core.records import result, with_seen
from hdcid_cli.tasks.annotations.identity import of_scenes
from hdcid_cli.tasks.segmentation.avsbench import Reader, read_meta, read_prompts
from hdcid_cli.tasks.segmentation.backbones import layout_of, load_backbone
from hdcid_cli.tasks.segmentation.directory import load_segmenter
from hdcid_cli.tasks.segmentation.evaluation import ClipScores, Guess, evaluate
from hdcid_cli.tasks.segmentation.overlay import Overlays
from hdcid_cli.tasks.segmentation.queries import match, read_queries, require_some
from hdcid_cli.tasks.segmentation.segmenter import Segmenter, SegmenterSettings
from hdcid_cli.tasks.segmentation.settings import SegmenterTrainSettings
from hdcid_cli.tasks.segmentation.training import train

BLIND = "blind"
# What a segmenter is made of, beside how it is trained.
MAKING = ("backbone", "random_weights", "size", "width")


@dataclass(frozen=True)
class Experiment:
    """What to learn from, what to test on, and how.

    Args:
        train: modality of the training queries, "audio" or "text".
        test: modalities of the test queries.
        checkpoint: whose codes are the queries.
        selection: the channels that a query takes, None for all.
        features, data: folders of feature files and of annotations.
        output: directory of the segmenter; one that is trained already is only tested.
        backbone, random_weights: see `load_backbone`.
        size, width: see `SegmenterSettings`.
        settings: how it is trained.
        protocol: "heldout" chooses the epoch by the validation split in the training modality,
            "published" in the test modality, as the released code does.
        blind: give every clip the same query: a baseline that knows the pictures alone.
        overlay: folder for one picture a test clip.
    """

    train: str
    test: tuple[str, ...]
    checkpoint: Checkpoint
    selection: Selection | None
    features: Path
    data: Path
    output: Path
    backbone: str = "pvt_v2_b5"
    random_weights: bool = False
    size: int = 224
    width: int = 256
    settings: SegmenterTrainSettings = field(default_factory=SegmenterTrainSettings)
    protocol: str = "heldout"
    blind: bool = False
    device: str = "auto"
    save_seconds: float = 300.0
    overwrite: bool = False
    overlay: Path | None = None

    def judge(self, test: str) -> str:
        """The modality whose validation score chooses the epoch that is tested on `test`."""
        return self.train if self.protocol == "heldout" else test

    @property
    def judges(self) -> list[str]:
        return sorted({self.judge(name) for name in self.test})


def run(experiment: Experiment, left_out: dict[str, str]) -> Iterator[dict]:
    """Train, or take up what is trained, and yield the records of every test modality.

    Args:
        left_out: gets {clip name: why it could not be used}.
    """
    device = resolve_device(experiment.device)
    overlays = [Overlays(experiment.overlay, read_prompts(experiment.data))] if experiment.overlay else []
    queries, made_by = {}, {}
    for name in dict.fromkeys((experiment.train, *experiment.test)):
        queries[name], made_by[name] = read_queries(
            experiment.checkpoint, experiment.features, name, experiment.selection
        )
    if experiment.blind:
        queries = {name: {id: np.zeros_like(query) for id, query in known.items()} for name, known in queries.items()}
    readers = _readers(experiment, queries, left_out)
    torch.manual_seed(experiment.settings.seed)
    backbone = load_backbone(experiment.backbone, experiment.random_weights)
    width = readers["train"].queries[experiment.train].shape[-1]
    architecture = SegmenterSettings(layout_of(backbone), width, experiment.width, experiment.size)
    train(
        experiment.output,
        # With nothing learned that the query could disturb, a start at zero only costs steps.
        Segmenter(architecture, backbone, start=1.0 if experiment.random_weights else 0.0),
        _configuration(experiment, architecture, len(readers["train"]), made_by),
        readers,
        experiment.train,
        device,
        experiment.save_seconds,
        experiment.overwrite,
    )
    del backbone
    yield from _test(experiment, readers["test"], overlays, device)
    for reader in readers.values():
        left_out.update(reader.unreadable)


def _readers(
    experiment: Experiment, queries: dict[str, dict[str, np.ndarray]], left_out: dict[str, str]
) -> dict[str, Reader]:
    """One reader a split, with the queries that the split is read with."""
    clips, prompts = read_meta(experiment.data), read_prompts(experiment.data)
    readers = {}
    for split, modalities in (("train", [experiment.train]), ("val", experiment.judges), ("test", experiment.test)):
        wanted = {name: queries[name] for name in modalities}
        kept, vectors, problems = match([clip for clip in clips if clip.split == split], wanted, prompts)
        require_some(kept, problems, split)
        left_out.update(problems)
        readers[split] = Reader(kept, vectors, experiment.size)
    return readers


def _configuration(
    experiment: Experiment, architecture: SegmenterSettings, clips: int, made_by: dict[str, dict]
) -> dict:
    """Everything that decides what is learned, and what `predict` must know to ask likewise."""
    selection = experiment.selection
    return {
        "segmenter": architecture.to_dict(),
        "start": {"backbone": experiment.backbone, "random_weights": experiment.random_weights},
        "train": asdict(experiment.settings),
        "query": {
            "modality": experiment.train,
            "blind": experiment.blind,
            "digest": experiment.checkpoint.digest,
            "toc": selection.label if selection else "none",
            "channels": [channels.tolist() for channels in selection.channels] if selection else None,
            "made_by": made_by[experiment.train],
            **({} if experiment.checkpoint.reading == "row" else {"read": experiment.checkpoint.reading}),
        },
        "clips": clips,
        "chosen_by": experiment.judges,
    }


def _test(experiment: Experiment, reader: Reader, overlays: list[Overlays], device) -> Iterator[dict]:
    queries, settings = reader.queries, experiment.settings
    for judge in experiment.judges:
        reader.queries = {name: queries[name] for name in experiment.test if experiment.judge(name) == judge}
        model, guess = load_segmenter(experiment.output, judge, device), Guess()
        found = evaluate(model, reader, settings.batch_size, device, settings.precision, keep=[guess, *overlays])
        for name, scores in found.items():
            tested = [clip.name for clip in reader.clips if clip.name not in reader.unreadable]
            yield from _records(experiment, name, tested, scores, guess.chance())


def _records(
    experiment: Experiment, test: str, tested: list[str], scores: ClipScores, chance: dict[str, float]
) -> Iterator[dict]:
    described = experiment.checkpoint.describe()
    if experiment.blind:
        described["method"] = BLIND
    described |= of_scenes([(clip.name, clip.category, clip.split) for clip in read_meta(experiment.data)])
    with open_features(experiment.features, test) as file:
        described["features_digest"] = file.digest
    otherwise = {"segmenter": words} if (words := _otherwise(experiment)) else {}
    groups = [recording(name) for name in tested]
    pretrained = count_of_recordings(tested, experiment.checkpoint.clips)
    for score in scores.scores(experiment.settings.seed, groups):
        yield result(
            task="segment",
            train=letter(experiment.train),
            test=letter(test),
            metric=score.name,
            value=score.value,
            interval=score.interval,
            n=len(scores.iou),
            n_pretrained=pretrained,
            chance=chance[score.name],
            protocol=with_seen(experiment.protocol, pretrained),
            **described,
            toc=experiment.selection.label if experiment.selection else "none",
            backbone=experiment.backbone,
            seed=experiment.settings.seed,
            **otherwise,
        )


def _otherwise(experiment: Experiment) -> str:
    """In what a segmenter is not made and trained as AVSBench's, in words: "size 64, random weights, epochs 60"."""
    usual = {each.name: each.default for each in fields(Experiment) if each.name in MAKING}
    usual |= SegmenterTrainSettings().to_dict()
    asked = {name: getattr(experiment, name) for name in MAKING} | experiment.settings.to_dict()
    return ", ".join(
        name.replace("_", " ") + ("" if value is True else f" {value}")
        for name, value in asked.items()
        if value != usual[name] and name not in ("seed", "precision")
    )
