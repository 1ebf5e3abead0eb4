"""What a folder of annotations is good for: which tasks are complete, which clips lack features, what to do next."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hdcid_cli.core import tables
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureFile, feature_paths, open_features
from hdcid_cli.core.names import count_of_recordings
from hdcid_cli.core.progress import counted
from hdcid_cli.core.splits import SPLITS
from hdcid_cli.tasks.annotations import own
from hdcid_cli.tasks.annotations.clips import AnnotatedClip, Annotations
from hdcid_cli.tasks.annotations.places import MissingAnnotations
from hdcid_cli.tasks.cmg.inputs import match
from hdcid_cli.tasks.cmg.tasks import TASKS
from hdcid_cli.tasks.segmentation import avsbench

# So many oddities, and so many names in one sentence, are told; the rest is counted.
TOLD = 3
READY, INCOMPLETE, LACKS_FEATURES = "ready", "incomplete", "lacks features"
# Where the features of a task lie, if not in a folder of its name: of what is learned on and of what is tested on.
ELSEWHERE = {"ave2avvp": ("ave", "avvp"), "segment": ("avs_s4", "avs_s4")}


@dataclass
class TaskSurvey:
    """What is known of one task.

    Attributes:
        state: READY, LACKS_FEATURES or INCOMPLETE.
        featured: whether there are features of any of its clips, of all that it learns on and is tested on.
        clips: that are annotated, by their names.
        tested: those to test.
        findings: what a user should know, a sentence each.
    """

    task: str
    state: str = READY
    featured: bool = True
    source: Path | None = None
    classes: int = 0
    clips: dict[str, AnnotatedClip] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    @property
    def tested(self) -> list[str]:
        return [name for name, clip in self.clips.items() if clip.split == "test"]

    @property
    def splits(self) -> dict[str, int]:
        """How many clips each split has; empty where the files name none."""
        counts = Counter(clip.split for clip in self.clips.values() if clip.split)
        return {split: counts[split] for split in SPLITS} if counts else {}

    def record(self) -> dict:
        """As a flat record."""
        return {
            "kind": "annotations",
            "task": self.task,
            "path": str(self.source or ""),
            "sound": self.state != INCOMPLETE,
            "state": self.state,
            "clips": len(self.clips),
            "classes": self.classes,
            **self.splits,
            "findings": self.findings,
        }


def survey_data(data: Path, features: Path, checkpoints: Path) -> Iterator[dict]:
    """Flat records: one a task that the folder (or one table) has anything of, and what to do next as the last.

    Args:
        features: folder of feature files; TASK/ in it belongs to a task.
        checkpoints: folder of checkpoints.

    Raises:
        InputError: there is nothing in it for any task.
    """
    lacking = _Features(features)
    found = []
    for task in _tasks_of(data):
        survey = _segment(data) if task == "segment" else _cross_modal(task, data, lacking)
        if survey is not None:
            found.append(survey)
    if not found:
        raise InputError(
            f"{data} holds neither feature files, nor a checkpoint, nor annotations of a task: make them with `hdcid "
            "extract`, `hdcid pretrain` and `hdcid convert annotations`; hdcid-files(5) says what each task reads."
        )
    for survey in found:
        yield survey.record()
    yield {
        "kind": "next",
        "path": str(data),
        "sound": True,
        "absent": [name for name in (*TASKS, "segment") if name not in {survey.task for survey in found}],
        **_next(found, data, lacking, checkpoints),
    }


def _tasks_of(data: Path) -> Sequence[str]:
    if data.is_dir():
        return (*TASKS, "segment")
    return ("localise",) if "onset" in tables.columns_of(data) else ("classify",)


class _Features:
    """The features that tasks find, and which are not there at all."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.absent: dict[str, None] = {}
        self.problems: dict[str, None] = {}
        self._opened: dict[tuple[Path, str], FeatureFile | None] = {}

    def of(self, name: str, modality: str) -> FeatureFile | None:
        """Those of a task, from `TASK/` where that is; None where there are none."""
        place = self.folder / name if (self.folder / name).is_dir() else self.folder
        if (place, modality) not in self._opened:
            self._opened[place, modality] = self._open(place, modality)
        return self._opened[place, modality]

    def _open(self, place: Path, modality: str) -> FeatureFile | None:
        try:
            if all(path.exists() for path in feature_paths(place, modality)):
                return open_features(place, modality)
            if modality != "text":
                self.absent[modality] = None
        except InputError as error:
            self.problems[str(error)] = None
        return None


def _cross_modal(name: str, data: Path, features: _Features) -> TaskSurvey | None:
    """A task of `hdcid cmg`, None where the folder has nothing of it."""
    if name in own.COLUMNS and not _is_own(name, data):
        return None
    survey = TaskSurvey(name)
    read, missing = [], []
    for train, test in (("video", "audio"), ("audio", "video")):
        try:
            for task in TASKS[name][:1]:
                read.append((train, test, *task.read(data, train, test)))
        except MissingAnnotations as error:
            missing.append(str(error))
        except InputError as error:
            survey.findings.append(str(error))
    if not read and not survey.findings and not (data / name).is_dir():
        return None
    survey.findings = list(dict.fromkeys(missing + survey.findings))
    if survey.findings:
        survey.state = INCOMPLETE
    problems: dict[str, None] = {}
    for _, _, source, target in read:
        for annotations in (source, target):
            problems |= dict.fromkeys(annotations.problems)
            survey.source, survey.classes = annotations.source, len(annotations.classes)
            survey.clips |= {clip.id: clip for clip in annotations.clips}
    survey.findings += [f"{problem}." for problem in list(problems)[:TOLD]]
    if len(problems) > TOLD:
        survey.findings.append(f"The annotations have {counted(len(problems) - TOLD, 'more such line')}.")
    if read and not survey.clips:
        survey.findings.append(f"{survey.source} names no clips.")
        survey.state = INCOMPLETE
        return survey
    if read:
        survey.findings += _on_splits(survey, read[0][2])
    lacking = list(dict.fromkeys(_on_features(survey, read, features)))
    if lacking and survey.state == READY:
        survey.state = LACKS_FEATURES
    survey.findings += lacking
    return survey


def _is_own(name: str, data: Path) -> bool:
    """Whether a table of one's own is there for the task; a lone table of something else is none."""
    try:
        path = own.find_table(data, name)
    except MissingAnnotations:
        return False
    return (
        path == data
        or path.stem == name
        or path.parent.name == name
        or set(own.COLUMNS[name]) <= set(tables.columns_of(path))
    )


def _on_splits(survey: TaskSurvey, annotations: Annotations) -> Iterator[str]:
    """What is odd about which clips are learned on and tested on."""
    counts, clips = survey.splits, list(survey.clips.values())
    if not counts:
        yield f"{survey.source} does not say which clips are train, val and test, so nothing can be held out."
        return
    if not counts["test"]:
        yield "No clip is to test: give some the split `test`."
    if not counts["val"]:
        yield "No clip is to choose the epoch by: a fifth of the train clips will."
    labels = {
        split: {clip.label for clip in clips if clip.split == split and clip.label is not None} for split in SPLITS
    }
    for split in ("train", "test"):
        absent = set.union(*labels.values()) - labels[split]
        if absent and labels[split]:
            yield f"Classes without a {split} clip: {_named([annotations.classes[label] for label in sorted(absent)])}."
    splits: dict[str, set[str]] = {}
    for clip in clips:
        splits.setdefault(clip.group, set()).add(clip.split or "")
    if divided := [group for group, found in splits.items() if "test" in found and len(found) > 1]:
        yield f"Recordings with clips to test and to learn on, of which nothing will be learned: {_named(divided)}."


def _on_features(survey: TaskSurvey, read: Sequence[tuple], features: _Features) -> Iterator[str]:
    """Which clips lack features, of what is learned on and of what is tested on."""
    learned, tested = ELSEWHERE.get(survey.task, (survey.task, survey.task))
    absent: dict[str, None] = {}
    for train, test, source, target in read:
        for modality, folder, annotations in ((train, learned, source), (test, tested, target)):
            file = features.of(folder, modality)
            if file is None:
                absent[modality] = None
                continue
            _, _, missing = match(file.ids, modality, annotations.clips, annotations.classes)
            if len(missing) == len(annotations.clips):
                survey.featured = False
                yield (
                    f"{file.name} has none of its clips: they are called {missing[0]!r} in {annotations.source}, "
                    f"{file.ids[0]!r} there."
                )
            elif missing:
                of = f"{len(missing)} of {counted(len(annotations.clips), 'clip')}"
                yield f"{file.name} lacks {of}: {_named(missing)}."
    if absent:
        survey.featured = False
        yield f"There are no features of {' and '.join(absent)}."


def _segment(data: Path) -> TaskSurvey | None:
    survey = TaskSurvey("segment")
    try:
        clips = avsbench.read_meta(data)
    except MissingAnnotations as error:
        if not (data / "avs_s4").is_dir():
            return None
        return TaskSurvey("segment", INCOMPLETE, findings=[str(error)])
    except InputError as error:
        return TaskSurvey("segment", INCOMPLETE, findings=[str(error)])
    survey.source, survey.classes = data, len({clip.category for clip in clips})
    survey.clips = {clip.name: AnnotatedClip(clip.name, clip.split) for clip in clips}
    absent = [clip.missing() for clip in clips]
    if missing := [path for path in absent if path]:
        survey.state = INCOMPLETE
        of = f"{len(missing)} of {counted(len(clips), 'clip')}"
        survey.findings.append(f"A frame or a mask is missing of {of}, such as {missing[0]}.")
    return survey


def _next(found: Sequence[TaskSurvey], data: Path, features: _Features, checkpoints: Path) -> dict:
    """What to do next: {"findings": sentences, "next": command lines}."""
    findings, latest = list(features.problems), checkpoints / "latest"
    usable = [survey for survey in found if survey.state != INCOMPLETE and survey.task != "segment"]
    media = data / "clips.csv" if (data / "clips.csv").is_file() else "videos/"
    lines = [f"hdcid extract --modality {name} {media}" for name in features.absent]
    if (data / "captions.csv").is_file() and features.of("", "text") is None:
        lines.append(f"hdcid extract --modality text {data / 'captions.csv'}")
    featured = sorted((survey for survey in usable if survey.featured), key=lambda survey: survey.state != READY)
    if featured and not (latest / "model.safetensors").exists():
        lines.append("hdcid pretrain")
    elif featured:
        lines.append(f"hdcid cmg {featured[0].task} --train v --test a")
    if (latest / "clips.txt").is_file():
        learned = [line for _, line in tables.lines(latest / "clips.txt")]
        for survey in usable:
            if count := count_of_recordings(survey.tested, learned):
                findings.append(
                    f"{latest} learned from {count} of {counted(len(survey.tested), 'clip')} that {survey.task} tests: "
                    "`hdcid pretrain` leaves out what a table of the folder is to test."
                )
    return {"findings": findings, "next": lines}


def _named(names: Sequence[str]) -> str:
    return ", ".join(map(str, names[:TOLD])) + f" and {len(names) - TOLD} more" * (len(names) > TOLD)
