"""Checkpoint directories: written so that a crash leaves the old one or the new one, read without trust.

    config.yaml        what the model is, how it was trained, on which features
    model.safetensors  the model, all that a task needs
    state.pt           model, losses, optimizers, random state and position, all that a resumed run needs
    metrics.jsonl      one record a logging interval
    clips.txt          names of the clips that it learned from
    toc.json           channels selected by `hdcid toc`

`model.safetensors` and `state.pt` are each complete and each replaced atomically, so no
crash between the two can mix an old half with a new one.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hdcid_cli.codes.state import STATE
from hdcid_cli.codes.toc import Selection
from hdcid_cli.core.device import resolve_device
from hdcid_cli.core.entries import Entries
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import file_digest, open_regular, read_text
from hdcid_cli.core.json_lines import objects
from hdcid_cli.core.modalities import ORDER, letter
from hdcid_cli.core.run_directory import CONFIG, RunDirectory, RunKind, read_config
from hdcid_cli.models.assembled import Model, build_model
from hdcid_cli.models.quantizers import READINGS
from hdcid_cli.models.quantizers.levels import former_levels
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.models.stored import not_finite, read_model, stored_tensors, write_model

MODEL, CLIPS, TOC, METRICS = "model.safetensors", "clips.txt", "toc.json", "metrics.jsonl"
QUOTE = '"'

CHECKPOINT = RunKind(
    "checkpoint directory",
    "hdcid-checkpoint",
    version=2,  # 2: weights of 3 x 3 lie channels last
    saved=(MODEL, "steps/*.safetensors", STATE),
    noted=(CLIPS, METRICS, "wandb.txt", "tensorboard/events.out.tfevents.*"),
    derived=(TOC, "cache/*.npy"),
    latest=True,
    absent={
        "model": ModelSettings().to_dict(),  # as `ModelSettings.from_dict` reads it
        "objective": {"align_on": "features"},
    },
)


@dataclass(frozen=True)
class LearnedFeatures:
    """What the features of a modality were that a model learned from; None for what the checkpoint does not say."""

    backbone: str | None
    weights: str | None


class Book(NamedTuple):
    """A table of codes that features are told apart by: its layer, counted from 1; its block, too, or 0 where the layer
    has none; and the rows [L, C].
    """

    layer: int
    block: int
    rows: np.ndarray


@dataclass(frozen=True)
class Description:
    """What a checkpoint's `config.yaml` says, checked.

    Attributes:
        model: what the model is made of.
        align: what aligned the modalities.
        align_on: what it compared, "features" or "both", codes as well.
        features: {modality: what was learned from}.
        clips: how many were learned from.
        precision, seed: of its training.
        epoch: of a published model, the last one that it was trained for.
        published_reading: what its makers' tasks read of its codes, one of READINGS.
        epochs: that it is, or was, to be trained for.
        mix: the largest share of seconds that clips exchanged.
    """

    model: ModelSettings
    align: tuple[str, ...]
    align_on: str
    features: dict[str, LearnedFeatures]
    clips: int | None
    precision: str
    seed: int | None
    epoch: int | None
    published_reading: str = "row"
    epochs: int | None = None
    mix: float = 0.0

    @classmethod
    def read(cls, path: Path) -> "Description":
        """Of a checkpoint directory; what is damaged, or not one of this program, is an InputError."""
        file = path / CONFIG
        config = Entries(read_config(path, CHECKPOINT), file)
        model = ModelSettings.from_dict(config.values.get("model"), f"{file}, model")
        if model.quantizer == "fsq":  # version 0.1 did not say which levels it took
            model = model.but(quantizer=f"fsq:{','.join(map(str, former_levels(model.codebook)))}")
        features = config.section("features")
        objective = config.section("objective")
        train, converted = config.section("train"), config.section("converted")
        reading = converted.text("read", "row")
        if reading not in READINGS:
            raise converted.wrong("read", f"one of {', '.join(READINGS)}")
        align_on = objective.text("align_on", "features")
        if align_on not in ("features", "both"):
            raise objective.wrong("align_on", "features or both")
        return cls(
            model,
            objective.texts("align", ()),
            align_on,
            {name: _learned(features.section(name)) for name in ORDER if name in features},
            config.whole("clips", None),
            train.text("precision", "float32"),
            train.whole("seed", None),
            converted.whole("epoch", None, least=-1),
            reading,
            train.whole("epochs", None),
            train.number("mix", 0.0, least=0, most=1),
        )


def _learned(section: Entries) -> LearnedFeatures:
    return LearnedFeatures(section.text("backbone", None), section.text("weights", None))


class Checkpoint:
    """A trained model, read-only.

    Attributes:
        path: its directory.
        description: what its `config.yaml` says.
        asked: what tasks are to read of its codes, one of READINGS; None: nobody said.
    """

    def __init__(self, path: Path, description: Description, device="cpu", asked: str | None = None):
        self.path, self.description, self._device, self.asked = path, description, device, asked

    @property
    def reading(self) -> str:
        """What tasks read of its codes, one of READINGS: all of them if nobody said."""
        return self.asked or "row"

    def as_published(self) -> "Checkpoint":
        """The same, read as the tasks of those who published it read it, unless somebody said how."""
        reading = self.description.published_reading
        if self.asked is not None or reading == self.reading:
            return self
        return Checkpoint(self.path, self.description, self._device, reading)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def settings(self) -> ModelSettings:
        """What the model is made of."""
        return self.description.model

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Shape of one segment's features for each of the model's modalities."""
        return self.settings.inputs

    def learned(self, modality: str) -> LearnedFeatures | None:
        """What the features of a modality were; None if the checkpoint says nothing of it."""
        return self.description.features.get(modality)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the model's file."""
        return file_digest(self.path / MODEL)

    @cached_property
    def stored_model(self) -> Model:
        """The model in eval mode on the device, whatever numbers it holds."""
        file, settings = self.path / MODEL, self.settings
        _check_depths(settings, stored_tensors(file), file)
        double = self.description.precision == "float64"
        model = read_model(
            file, lambda: build_model(settings).double() if double else build_model(settings), self.path / CONFIG
        )
        self._stored_width = model.code_layers[0].quantizer.width
        if self.reading != "row":
            _read_as(self.reading, model, f"{self.path} ({settings.quantizer})")
        return model.to(resolve_device(self._device)).eval().requires_grad_(False)

    @cached_property
    def not_finite(self) -> list[str]:
        """Names of the model's tensors that hold NaN or infinity: of such a model nothing can be read."""
        return not_finite(self.stored_model)

    @property
    def model(self) -> Model:
        """The model in eval mode on the device; one that holds NaN or infinity is an InputError."""
        if self.not_finite:
            raise InputError(
                f"{self.path / MODEL} holds NaN or infinity in {self.not_finite[0]}: nothing can be read of such a "
                "model; train it again."
            )
        return self.stored_model

    @cached_property
    def codebooks(self) -> list[np.ndarray]:
        """What tasks read for each code, [L, width] a layer (of the first stage for rvq, the implied one for fsq)."""
        return [layer.quantizer.table.detach().cpu().double().numpy() for layer in self.model.code_layers]

    @cached_property
    def books(self) -> list[Book]:
        """What codes are compared by: every layer's codebook, and with `pq:N` every block's."""
        found = []
        for layer, (table, of) in enumerate(zip(self.codebooks, self.model.code_layers), 1):
            parts = np.split(table, of.quantizer.parts, axis=1)
            found += [Book(layer, block if len(parts) > 1 else 0, rows) for block, rows in enumerate(parts, 1)]
        return found

    @property
    def toc(self) -> Selection | None:
        """What `hdcid toc` stored."""
        file = self.path / TOC
        if not file.exists():
            return None
        width = self.stored_model.code_layers[0].quantizer.width
        if width != self._stored_width:
            raise InputError(
                f"{file} selects channels of all that a code stands for: with --read {self.reading} say --toc none, or "
                "a number of channels."
            )
        return Selection.load(file, self.settings.levels, width)

    @property
    def clips(self) -> set[str]:
        """Names of the clips that the model learned from; empty for an imported checkpoint."""
        file = self.path / CLIPS
        return set(parse_clip_list(read_text(file), file)) if file.exists() else set()

    @property
    def epochs_done(self) -> float | None:
        """Epochs that its run has logged; None where there is no log."""
        file = self.path / METRICS
        if not file.exists():
            return None
        with open_regular(file) as stream:
            found = [record.get("epoch") for _, record in objects(stream, str(file), lambda message: None)]
        return next((float(each) for each in reversed(found) if isinstance(each, (int, float))), None)

    @property
    def method(self) -> str:
        """What aligned the modalities, as records name it: "cpc,cmcm"; a model that is assembled in another way by its
        own name.
        """
        return ",".join(self.description.align) if self.settings.kind == "hdcid" else self.settings.kind

    def describe(self) -> dict:
        """The fields of a record that say which model a result is of; some are there only where they are not usual."""
        unusual = ("dim", "spatial_attention", "cell_hidden") if self.settings.reads_maps else ("dim",)
        sizes = {name: getattr(self.settings, name) for name in unusual}
        return {
            "method": self.method,
            "layers": self.settings.layers,
            "quantizer": self.settings.quantizer,
            "codebook": self.stored_model.code_layers[0].quantizer.codes,  # of fsq its levels say how many
            "modalities": "".join(letter(name) for name in self.inputs),
            "pretrain_clips": self.description.clips,
            "checkpoint": self.digest,
            "checkpoint_name": self.name,
            "pretrain_seed": self.description.seed,
            **{name: value for name, value in sizes.items() if value != getattr(ModelSettings, name)},
            **({} if self.description.align_on == "features" else {"align_on": self.description.align_on}),
            **({"mix": self.description.mix} if self.description.mix else {}),
            **({} if self.reading == "row" else {"read": self.reading}),
        }


def _read_as(reading: str, model: Model, source: str) -> None:
    """Put in the place of the model's quantizers what reads their codes otherwise; without one it is an InputError."""
    for layer in model.code_layers:
        if reading not in layer.quantizer.readings:
            raise InputError(f"{source} has nothing to --read {reading}: {READINGS[reading]}.")
        layer.quantizer = layer.quantizer.readings[reading](layer.quantizer)


def _check_depths(settings: ModelSettings, names: Iterable[str], file: Path) -> None:
    """Raise InputError if the file has other numbers of layers than the settings: a million are not even planned."""
    for pattern, claimed, what in (
        (r"layers\.(\d{1,9})\.", settings.trained_layers, "layers"),
        (
            r"layers\.0\..+?\.transformer\.layers\.(\d{1,9})\.",
            settings.transformer_layers,
            "layers of its transformers",
        ),
    ):
        found = {match[1] for name in names if (match := re.match(pattern, name))}
        if len(found) != claimed:
            raise InputError(f"{file} has {len(found)} {what}, and {CONFIG} beside it says {claimed}.")


def clip_list(names: Iterable[str]) -> str:
    """Names of clips, one a line; one that does not fit in a line, or looks like such a one, as a JSON text."""
    return "".join(
        f"{json.dumps(name) if name[:1] in ('', QUOTE) or not name.isprintable() else name}\n" for name in names
    )


def parse_clip_list(text: str, file: Path) -> list[str]:
    """The names in what `clip_list` wrote."""
    names = text.removesuffix("\n").split("\n") if text else []
    for number, line in enumerate(names):
        if line[:1] == QUOTE:
            try:
                names[number] = str(json.loads(line))
            except (ValueError, RecursionError):
                raise InputError(f"{file}, line {number + 1}: not the name of a clip.") from None
    return names


def find_checkpoint(where: Path | str | None, folder: Path | str) -> Path:
    """The directory of a checkpoint: `where`, a name in `folder`, or `folder/latest`; missing -> InputError."""
    folder = Path(folder)
    candidates = [folder / "latest"] if where is None else [Path(where), folder / where]
    for path in candidates:
        if (path / CONFIG).exists():
            return path.resolve()
    if where is None:
        raise InputError(
            f"There is no checkpoint in {folder}/: make one with `hdcid pretrain`, or name one with --checkpoint."
        )
    raise InputError(f"{where} is not a checkpoint directory (it has no {CONFIG}): make one with `hdcid pretrain`.")


def open_checkpoint(
    where: Path | str | None = None, checkpoints: Path | str = "checkpoints", device="auto", reading: str | None = None
) -> Checkpoint:
    """Open a checkpoint by path, by name, or the latest; anything else is an InputError.

    Args:
        reading: what tasks read of its codes, one of READINGS; None is all of them, `row`.
    """
    path = find_checkpoint(where, checkpoints)
    description = Description.read(path)
    if not (path / MODEL).exists():
        raise InputError(
            f"{path} holds no model yet: its training was stopped before the first save; run the same `hdcid "
            "pretrain` again."
        )
    return Checkpoint(path, description, device, reading)


def write_checkpoint(path: Path, config: dict, model: Model) -> None:
    """Make a checkpoint directory of a model that was not trained here, or replace the one at the path; `latest` is it.

    Args:
        config: sections `model`, `objective`, `train` and `features` of its `config.yaml`.
    """
    with RunDirectory(path, CHECKPOINT, config, overwrite=True) as directory:
        directory.start()
        directory.save({MODEL: lambda file: write_model(file, model)})
