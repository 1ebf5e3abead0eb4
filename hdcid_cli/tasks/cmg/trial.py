"""One task in one direction with all that its probes see, and what a trained probe answers."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from hdcid_cli.core.device import resolve_device
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.precision import matmul_precision
from hdcid_cli.core.progress import counted, progress, say
from hdcid_cli.tasks.annotations.clips import AnnotatedClip, Annotations, segment_labels
from hdcid_cli.tasks.cmg.inputs import Inputs
from hdcid_cli.tasks.cmg.openset import OpenAnswers, keep_threshold, known_classes, measure, open_scores
from hdcid_cli.tasks.cmg.probe import Samples, fit, new_probe, predict, regularize, standardize
from hdcid_cli.tasks.cmg.protocol import (
    SUPERVISED_DROPOUTS,
    Further,
    Probed,
    ProbeSettings,
    Schedule,
    Task,
    schedule_for,
    split_clips,
    tested_clips,
)
from hdcid_cli.tasks.cmg.reading import Reading
from hdcid_cli.tasks.cmg.scores import (
    CLASSIFICATION,
    LOCALIZATION,
    Answers,
    Truth,
    all_scores,
    best_cut,
    blind_answers,
    chances,
    value,
)
from hdcid_cli.tasks.metrics import Bootstrap, Score

# The published probe is as wide as the codes that it reads; one on raw features has a width of its own.
SUPERVISED_HIDDEN = 256


@dataclass(frozen=True)
class Learned:
    """A trained decoder at the epoch that was chosen, the dropout that it learned with, and how it was judged: by the
    task's metric, and by minus its loss on validation clips.
    """

    probe: nn.Module
    epoch: int
    dropout: float
    judgement: tuple[float, float]


@dataclass(frozen=True)
class Outcome:
    """What one probe answered.

    Attributes:
        seed: of the probe.
        learned: the trained decoder.
        answers: its answers to the tested clips, and the truth.
        scores: the papers' metric first.
        chances: {metric: what guessing gets}.
        further: the task's own further scores.
        opened: of an open set, what the scores are of.
        threshold: of an open set, the score below which a clip is rejected; of segments, the probability above which
            an event is found; of clips None.
    """

    seed: int
    learned: Learned
    answers: Answers
    scores: list[Score]
    chances: Mapping[str, float]
    further: Further = field(default_factory=Further)
    opened: OpenAnswers | None = None
    threshold: float | None = None


class Trial:
    """A task's clips with their inputs and labels, on the device, ready to be probed once a seed.

    Args:
        source, target: annotations of what is learned on and of what is tested on.
        warn: told which clips are left out because they have no features.

    Attributes:
        known: names of the classes that a probe answers: all of them, or those of an open set.
        fit, choose, tested: the clips learned on, chosen on (None: the tested ones), answered.
        chances: {metric: what the best answer to it that does not look at its input gets}.
    """

    def __init__(
        self,
        task: Task,
        source: Annotations,
        target: Annotations,
        reading: Reading,
        settings: ProbeSettings,
        device: str = "auto",
        warn: Callable[[str], None] = lambda message: None,
    ):
        self.task, self.settings, self.reading = settings.task(task), settings, reading
        self.classes, self.device = source.classes, resolve_device(device)
        self._annotations = {reading.train.modality: source, reading.test.modality: target}
        self.known, self._numbers = self.classes, np.arange(len(self.classes))
        if settings.open_set is not None:
            known = known_classes(settings.open_set, self.classes)
            self.known = tuple(self.classes[number] for number in known)
            self._numbers = np.full(len(self.classes), len(known))  # of those that are not known
            self._numbers[list(known)] = np.arange(len(known))
            source = source.part([clip for clip in source.clips if clip.label in known])
        parts = split_clips(self.task, settings.protocol, source, target)
        self._missing: dict[str, dict[str, None]] = {}
        self.fit, self._rows = self._samples(parts.fit, reading.train)
        self.tested, _ = self._samples(parts.test, reading.test)
        self.choose = None if parts.choose is None else self._samples(parts.choose, reading.train)[0]
        if self.fit.inputs.shape[-1] != self.tested.inputs.shape[-1]:
            raise InputError(
                f"{reading.train.source} and {reading.test.source} have {self.fit.inputs.shape[-1]} and "
                f"{self.tested.inputs.shape[-1]} numbers a segment: features of one backbone are needed to learn and "
                "to test on."
            )
        if self.open:
            self._tell_empty()
        for name, absent in self._missing.items():
            if absent:
                shown = list(absent)[:5]
                warn(
                    f"{name} has no features of {counted(len(absent), 'annotated clip')}, left out: "
                    f"{', '.join(shown)}{', ...' * (len(absent) > 5)}."
                )

    @cached_property
    def schedule(self) -> Schedule:
        """How its probes learn."""
        return schedule_for(self.task, self.settings, len(self.fit), self.reading.supervised, self.reading.start)

    @cached_property
    def noisy(self) -> bool:
        """Whether the encoder's dropout gives a clip other codes in every epoch."""
        return self.settings.noisy and self.reading.dropout > 0

    @cached_property
    def blind(self) -> dict[str, np.ndarray]:
        """{metric: the best answer to it that does not look at its input}, by the labels of what is learned on."""
        return blind_answers(self.task.kind, self._truth(self.fit))

    @cached_property
    def chances(self) -> dict[str, float]:
        """{metric: what its blind answer gets}."""
        return chances(self.task.kind, self.blind, self._truth(self.tested), self._batch)

    @matmul_precision("float32")  # whatever was computed before
    def probe(self, seed: int) -> Outcome:
        """Learn on `fit`, choose the epoch on `choose` (None: on `tested`), answer `tested`."""
        learned = max((self._learn(seed, dropout) for dropout in self._dropouts), key=lambda each: each.judgement)
        answers = Answers(
            predict(learned.probe, self.tested),
            self._truth(self.tested),
            Bootstrap(self.tested.groups),
            self._batch,
            self._cut(learned.probe),
        )
        if self.open:
            return self._open_outcome(seed, learned, answers)
        scores = sorted(all_scores(self.task.kind, answers), key=lambda each: each.name != self.task.metric)
        further = self.task.more(self._probed(learned.probe, answers.cut)) if self.task.more else Further()
        threshold = 1 / (1 + math.exp(-answers.cut)) if self.task.kind == LOCALIZATION else None
        return Outcome(seed, learned, answers, scores, self.chances, further, threshold=threshold)

    @property
    def _dropouts(self) -> Sequence[float]:
        """What to learn with, and to choose from on validation clips."""
        if self.settings.dropout is not None:
            return (self.settings.dropout,)
        return SUPERVISED_DROPOUTS if self.reading.supervised and self.choose is not None else (0.0,)

    def _learn(self, seed: int, dropout: float) -> Learned:
        """A probe at its best epoch."""
        task, width = self.task, self.fit.inputs.shape[-1]
        hidden = SUPERVISED_HIDDEN if self.reading.supervised else width
        decoder, loss = new_probe(task.kind, width, hidden, len(self.known), seed, self.settings.probe(task.kind)[1])
        if dropout:
            regularize(decoder, dropout)
        if self.reading.supervised:
            standardize(decoder, self.fit)
        judged, metric = (self.tested, task.metric) if self.choose is None else (self.choose, task.choice)
        truth = self._truth(judged)

        def judge(candidate: nn.Module) -> float:
            bar.update()
            answers = Answers(predict(candidate, judged), truth, batch=self._batch)
            if self.open and self.choose is None:
                return float(measure(OpenAnswers.of(answers, self.settings.score), None)[0]["hos"][0])
            return value(task.kind, metric, answers)

        with progress(total=self.schedule.epochs, description=f"probing {task.name}", unit="epoch") as bar:
            best, epoch, judgements = fit(
                decoder, loss, self.fit, self.schedule, seed, judge, self._renewing(seed), self.open
            )
        if self.choose is None:
            return Learned(best, epoch, dropout, (judgements[epoch - 1], 0.0))
        with torch.inference_mode():
            said = torch.from_numpy(predict(best, judged)).to(self.device)
            minus_loss = -float(loss(said, judged.labels, judged.valid))
        return Learned(best, epoch, dropout, (judgements[epoch - 1], minus_loss))

    def _cut(self, probe: nn.Module) -> float:
        """Above which logit the events of a segment are answered."""
        if self.settings.threshold == "half" or self.choose is None or self.task.kind != LOCALIZATION:
            return 0.0
        return best_cut(Answers(predict(probe, self.choose), self._truth(self.choose)))

    @property
    def open(self) -> bool:
        """Whether clips of classes that are not known should be rejected."""
        return self.settings.open_set is not None

    def _tell_empty(self) -> None:
        """Say which known classes have no clips on a side."""
        for samples, purpose in ((self.fit, "learn from"), (self.tested, "test on")):
            count = np.bincount(self._truth(samples).labels, minlength=len(self.known))
            lacking = [name for name, clips in zip(self.known, count) if not clips]
            if lacking:
                say(f"No clip to {purpose} is of the known {', '.join(lacking)}.")

    def _open_outcome(self, seed: int, learned: Learned, answers: Answers) -> Outcome:
        """What a probe's answers to an open set come to, with the threshold that the protocol chooses."""
        opened, threshold = OpenAnswers.of(answers, self.settings.score), None
        if self.choose is not None:
            said = Answers(predict(learned.probe, self.choose), self._truth(self.choose))
            kept = OpenAnswers.of(said, self.settings.score)
            threshold = keep_threshold(kept.score, self.settings.keep)
        commonest = np.bincount(self._truth(self.fit).labels).argmax()
        labels = answers.truth.labels[opened.known]
        closed_chance = float((labels == commonest).mean())
        measured = open_scores(opened, threshold, answers.bootstrap or Bootstrap(self.tested.groups), closed_chance)
        return Outcome(
            seed, learned, answers, measured.scores, measured.chances, opened=opened, threshold=measured.threshold
        )

    def _renewing(self, seed: int) -> Callable[[int], Tensor] | None:
        """What gives the inputs of every epoch anew: the encoder's dropout; None without."""
        read = self.reading.train.read_noisy
        if read is None or not self.noisy:
            return None

        def renew(epoch: int) -> Tensor:
            number = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
            return torch.from_numpy(read(self._rows, number)).to(self.device)

        return renew

    @property
    def _batch(self) -> int | None:
        """The released code averages over batches."""
        return self.settings.batch_size if self.settings.published else None

    def _truth(self, samples: Samples) -> Truth:
        return Truth(samples.labels.cpu().numpy(), samples.valid.cpu().numpy(), len(self.known))

    def _probed(self, decoder: nn.Module, cut: float) -> Probed:
        def answer(clips: Sequence[AnnotatedClip], inputs: Inputs) -> Answers:
            samples, _ = self._samples(clips, inputs)
            return Answers(predict(decoder, samples), self._truth(samples), cut=cut)

        tested = {
            name: tested_clips(self.task, self.settings.protocol, each) for name, each in self._annotations.items()
        }
        inputs = {each.modality: each for each in (self.reading.train, self.reading.test)}
        return Probed(answer, self.blind, tested, inputs, self.classes)

    def _samples(self, clips: Sequence[AnnotatedClip], inputs: Inputs) -> tuple[Samples, list[int]]:
        """Inputs and labels of the clips that have features, and their rows; who has none is remembered."""
        found, rows, absent = inputs.match(clips, self.classes)
        self._missing.setdefault(inputs.source, {}).update(dict.fromkeys(absent))
        if not found:
            names = ", ".join(clip.id for clip in clips[:3])
            raise InputError(
                f"{inputs.source} has no clip that {self.task.name} needs, of {len(clips)} such as {names}: extract "
                "their features."
            )
        steps = inputs.shape[0]
        # The published code counts the segments past a clip's end as any others.
        length = np.full(len(rows), steps) if self.settings.published else inputs.length[rows]
        valid = np.arange(steps) < length[:, None]
        if self.task.kind == CLASSIFICATION:
            labels = self._numbers[np.array([clip.label for clip in found])]
        else:
            labels = segment_labels(found, len(self.classes), steps, inputs.seconds)
        arrays = (torch.from_numpy(array).to(self.device) for array in (inputs.read(rows), labels, valid))
        return Samples([clip.id for clip in found], [clip.group for clip in found], *arrays), rows
