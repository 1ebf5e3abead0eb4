"""What tasks there are. Adding one takes a reader in `tasks/annotations` and an entry here."""

from collections.abc import Callable
from pathlib import Path

from hdcid_cli.core.errors import InputError
from hdcid_cli.tasks.annotations import ave, ave2avvp, llp, own, ucf2vgg, ucf51, vggsound
from hdcid_cli.tasks.annotations.clips import Annotations
from hdcid_cli.tasks.cmg.parsing import parsing
from hdcid_cli.tasks.cmg.protocol import Task
from hdcid_cli.tasks.cmg.scores import CLASSIFICATION, LOCALIZATION

Both = Callable[[Path, str, str], tuple[Annotations, Annotations]]


def twice(read: Callable[[Path], Annotations]) -> Both:
    """One data set to learn on and to be tested on, whatever the modalities."""

    def both(data: Path, train: str, test: str) -> tuple[Annotations, Annotations]:
        annotations = read(data)
        return annotations, annotations

    return both


def _llp(data: Path, train: str, test: str) -> tuple[Annotations, Annotations]:
    """What is heard and what is seen are annotated apart."""
    return llp.read(data, train), llp.read(data, test)


def _ave2avvp(data: Path, train: str, test: str) -> tuple[Annotations, Annotations]:
    return ave2avvp.read(data, test)


def _ucf2vgg(data: Path, train: str, test: str) -> tuple[Annotations, Annotations]:
    by_modality = {"video": ucf2vgg.read_ucf, "audio": ucf2vgg.read_vggsound}
    for modality in (train, test):
        if modality not in by_modality:
            raise InputError("ucf2vgg has video (of UCF-101) and audio (of VGGSound), no text.")
    return by_modality[train](data), by_modality[test](data)


def classification(name: str, summary: str, read: Both, **more) -> Task:
    """One class a clip; the papers call the share of right ones precision."""
    return Task(name, CLASSIFICATION, summary, "precision", "precision", read, **more)


def localization(name: str, summary: str, metric: str, choice: str, read: Both, **more) -> Task:
    """All events of each segment."""
    return Task(name, LOCALIZATION, summary, metric, choice, read, **{"epochs": 100, **more})


# A name may stand for several tasks on the same clips. The released scripts test `ave` on the clips learned from.
# Precision alone likes answers that are few: the held-out protocol chooses by F1 where several events may be right.
TASKS: dict[str, tuple[Task, ...]] = {
    "ave": (classification("ave", "one class a clip (AVE)", twice(ave.read), published=("train", "train")),),
    "avvp": (
        localization(
            "avvp", "events of each second (LLP)", "accuracy", "f1", _llp, published=(None, None), more=parsing
        ),
    ),
    "ave2avvp": (
        localization("ave2avvp", "learn on AVE, find events in LLP", "f1", "f1", _ave2avvp, published=(None, None)),
    ),
    "ucf51": (
        classification(
            "ucf51",
            "UCF-101's 51 classes with sound",
            twice(ucf51.read),
            published=(None, None),
            open_published=(None, None),
            open_epochs=16,
        ),
    ),
    "ucf2vgg": (
        classification(
            "ucf2vgg",
            "video of UCF-101, audio of VGGSound",
            _ucf2vgg,
            published=(None, None),
            epochs=100,
            open_published=(None, None),
        ),
    ),
    "vggsound": (
        classification(
            "vggsound", "VGGSound-AVEL: one class a clip, and each second where times are given", twice(vggsound.read)
        ),
        localization(
            "vggsound", "VGGSound-AVEL, each second", "segment_accuracy", "segment_accuracy", twice(vggsound.read)
        ),
    ),
    "classify": (classification("classify", "your own table: id,split,label", twice(own.read_classify)),),
    "localise": (
        localization("localise", "your own table: id,split,label,onset,offset", "f1", "f1", twice(own.read_localise)),
    ),
}
