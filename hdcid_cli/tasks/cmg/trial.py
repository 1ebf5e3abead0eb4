"""One task in one direction with all that its probes see, and what a trained probe answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from hdcid_cli.core.device import resolve_device
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.progress import progress
from hdcid_cli.tasks.annotations.clips import AnnotatedClip, Annotations, segment_labels
from hdcid_cli.tasks.cmg.inputs import Inputs
from hdcid_cli.tasks.cmg.probe import Samples, fit, new_probe, predict, standardize
from hdcid_cli.tasks.cmg.protocol import (
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
from hdcid_cli.tasks.cmg.scores import CLASSIFICATION, Answers, Truth, all_scores, blind_answers, chances, value
from hdcid_cli.tasks.metrics import Bootstrap, Score

# The published probe is as wide as the codes that it reads; one on raw features has a width of its own.
SUPERVISED_HIDDEN = 256


@dataclass(frozen=True)
class Outcome:
    """What one probe answered.

    Attributes:
        seed, epoch: of the probe, and the epoch that was chosen.
        probe: the trained decoder.
        answers: its answers to the tested clips, and the truth.
        scores: the papers' metric first.
        further: the task's own further scores.
    """

    seed: int
    epoch: int
    probe: nn.Module
    answers: Answers
    scores: list[Score]
    further: Further = field(default_factory=Further)


class Trial:
    """A task's clips with their inputs and labels, on the device, ready to be probed once a seed.

    Args:
        source, target: annotations of what is learned on and of what is tested on.
        warn: told which clips are left out because they have no features.

    Attributes:
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
        self.task, self.settings, self.reading = task, settings, reading
        self.classes, self.device = source.classes, resolve_device(device)
        self._annotations = {reading.train.modality: source, reading.test.modality: target}
        parts = split_clips(task, settings.protocol, source, target)
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
        for name, absent in self._missing.items():
            if absent:
                shown = list(absent)[:5]
                warn(
                    f"{name} has no features of {len(absent)} annotated clips, which are left out: "
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

    def probe(self, seed: int) -> Outcome:
        """Learn on `fit`, choose the epoch on `choose` (None: on `tested`), answer `tested`."""
        task, width = self.task, self.fit.inputs.shape[-1]
        hidden = SUPERVISED_HIDDEN if self.reading.supervised else width
        decoder, loss = new_probe(task.kind, width, hidden, len(self.classes), seed)
        if self.reading.supervised:
            standardize(decoder, self.fit)
        judged, metric = (self.tested, task.metric) if self.choose is None else (self.choose, task.choice)
        truth = self._truth(judged)

        def judge(candidate: nn.Module) -> float:
            bar.update()
            return value(task.kind, metric, Answers(predict(candidate, judged), truth, batch=self._batch))

        with progress(total=self.schedule.epochs, description=f"probing {task.name}", unit="epoch") as bar:
            best, epoch, _ = fit(decoder, loss, self.fit, self.schedule, seed, judge, self._renewing(seed))
        bootstrap = Bootstrap(self.tested.groups)
        answers = Answers(predict(best, self.tested), self._truth(self.tested), bootstrap, self._batch)
        scores = sorted(all_scores(task.kind, answers), key=lambda each: each.name != task.metric)
        further = task.more(self._probed(best)) if task.more else Further()
        return Outcome(seed, epoch, best, answers, scores, further)

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
        return Truth(samples.labels.cpu().numpy(), samples.valid.cpu().numpy(), len(self.classes))

    def _probed(self, decoder: nn.Module) -> Probed:
        def answer(clips: Sequence[AnnotatedClip], inputs: Inputs) -> Answers:
            samples, _ = self._samples(clips, inputs)
            return Answers(predict(decoder, samples), self._truth(samples))

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
                f"{inputs.source} has none of the {len(clips)} clips that {self.task.name} needs (such as {names}): "
                "extract their features."
            )
        steps = inputs.shape[0]
        # The published code counts the segments past a clip's end as any others.
        length = np.full(len(rows), steps) if self.settings.published else inputs.length[rows]
        valid = np.arange(steps) < length[:, None]
        if self.task.kind == CLASSIFICATION:
            labels = np.array([clip.label for clip in found])
        else:
            labels = segment_labels(found, len(self.classes), steps, inputs.seconds)
        arrays = (torch.from_numpy(array).to(self.device) for array in (inputs.read(rows), labels, valid))
        return Samples([clip.id for clip in found], [clip.group for clip in found], *arrays), rows
