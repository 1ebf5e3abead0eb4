"""What a probe reads of the modality that it learns on and of the one that it is tested on: codes, or raw features."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hdcid_cli.codes.checkpoint import Checkpoint
from hdcid_cli.codes.encode import encode
from hdcid_cli.codes.toc import Selection, apply_toc, resolve_toc
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureFile, open_features
from hdcid_cli.core.loading import ClipReader, batches_on
from hdcid_cli.core.modalities import letter
from hdcid_cli.core.precision import matmul_precision
from hdcid_cli.core.progress import counted
from hdcid_cli.tasks.cmg.inputs import Inputs

BATCH = 256
# Why settings of codes make no difference to a supervised probe.
NO_CODES = "a supervised probe reads features, and no codes"


@dataclass(frozen=True)
class Reading:
    """What a probe reads, and of which model it is.

    Attributes:
        train, test: of the modality learned on and of the one tested on.
        model: the fields of a record that say which model a result is of.
        pretrained: names of the clips that the model learned from.
        supervised: it reads raw features: they are to be standardized.
        dropout: the encoder's, in training mode.
        start: for a model that others trained, the epoch after its last; 0 for our own.
    """

    train: Inputs
    test: Inputs
    model: dict = field(default_factory=dict)
    pretrained: frozenset[str] = frozenset()
    supervised: bool = False
    dropout: float = 0.0
    start: int = 0


def read_features(train: FeatureFile, test: FeatureFile | None = None) -> Reading:
    """Raw features, one flat vector a segment: the supervised ceiling of a modality.

    Args:
        train, test: the features learned on and tested on, of one modality; None: the same.
    """
    check_supervised(train.modality, (test or train).modality)
    learned = _feature_inputs(train)
    tested = learned if test in (None, train) else _feature_inputs(test)
    model = dict.fromkeys(("layers", "quantizer", "codebook", "toc", "checkpoint"))
    model |= {"method": "supervised", "backbone": (test or train).backbone}
    return Reading(learned, tested, model, supervised=True)


def open_sides(
    features: Path | str, train: str, test: str, elsewhere: Path | str | None = None
) -> tuple[FeatureFile, FeatureFile]:
    """The features of the modality learned on and of the one tested on, which may lie elsewhere: one file, opened once,
    where both are the same.
    """
    learned = open_features(features, train)
    if train == test and elsewhere in (None, features):
        return learned, learned
    return learned, open_features(elsewhere or features, test)


def check_supervised(train: str, test: str) -> None:
    """Raise InputError unless one modality is learned and tested on."""
    if train != test:
        raise InputError(
            f"A supervised probe reads raw features, so it is tested on what it learns on: --train {letter(test)} "
            f"--test {letter(test)}."
        )


def _feature_inputs(features: FeatureFile) -> Inputs:
    steps, width = features.shape[0], int(np.prod(features.shape[1:]))

    def read(rows: Sequence[int]) -> np.ndarray:
        return features.read(rows).reshape(len(rows), steps, width)

    return _inputs(features, (steps, width), read)


def read_codes(
    checkpoint: Checkpoint,
    train: FeatureFile,
    test: FeatureFile,
    task: str,
    toc: str = "stored",
    layers: int | None = None,
    published: bool = False,
) -> Reading:
    """Quantized features of all layers side by side, on the channels that TOC selects.

    Args:
        train, test: the features that are encoded; the same file twice is encoded once.
        task: for `toc` "paper", which depends on it.
        toc: see `resolve_toc`.
        layers: read only so many layers, the first ones.
        published: of each code what its makers' tasks read, unless the checkpoint was opened to be read otherwise.
    """
    checkpoint = checkpoint.as_published() if published else checkpoint
    levels = len(checkpoint.codebooks)
    if layers is not None and layers > levels:
        has = counted(levels, "layer")
        raise InputError(f"{checkpoint.path} has {has} of codes: --layers-used {layers} cannot be read.")
    selection = resolve_toc(toc, checkpoint, task, train.modality)
    model = checkpoint.describe() | {
        "layers_used": layers or levels,
        "toc": selection.label if selection else "none",
        "backbone": test.backbone,
    }
    if selection and toc == "stored" and checkpoint.toc:
        model["toc_criterion"] = checkpoint.toc.criterion
    learned = _code_inputs(checkpoint, train, selection, layers)
    tested = learned if test is train else _code_inputs(checkpoint, test, selection, layers)
    epoch = checkpoint.description.epoch
    return Reading(
        learned,
        tested,
        model,
        frozenset(checkpoint.clips),
        dropout=checkpoint.model.config.dropout,
        start=0 if epoch is None else max(0, epoch) + 1,
    )


def _code_inputs(
    checkpoint: Checkpoint, features: FeatureFile, selection: Selection | None, layers: int | None
) -> Inputs:
    if selection is not None:
        selection = replace(selection, channels=selection.channels[:layers])
    codes = encode(checkpoint, features)

    def select(quantized: np.ndarray) -> np.ndarray:
        return apply_toc(quantized[:, :, :layers], selection)

    def read(rows: Sequence[int]) -> np.ndarray:
        return codes.read(rows, selection, layers)

    return _inputs(features, read([0]).shape[1:], read, _Noisy(checkpoint, features, select).read)


def _inputs(features: FeatureFile, shape: tuple[int, int], read: Callable, noisy: Callable | None = None) -> Inputs:
    return Inputs(
        features.name,
        features.modality,
        features.ids,
        features.length,
        features.segment_seconds,
        shape,
        read,
        noisy,
        features.digest,
    )


class _Noisy:
    """Codes as the encoder gives them in training mode, with its dropout: others for every seed.

    Args:
        select: quantized features [n, T, K, D] -> [n, T, C].
    """

    def __init__(self, checkpoint: Checkpoint, features: FeatureFile, select: Callable[[np.ndarray], np.ndarray]):
        self.checkpoint, self.features, self.select = checkpoint, features, select
        self._rows: list[int] = []
        self._reader: ClipReader | None = None

    def read(self, rows: Sequence[int], seed: int) -> np.ndarray:
        """[n, T, C] of these rows. The features of the rows last asked for stay in memory if there is room."""
        model, name, parts = self.checkpoint.model, self.features.modality, []
        parameter = next(model.parameters())
        if self._reader is None or self._rows != list(rows):
            self._rows = list(rows)
            ids = [self.features.ids[row] for row in rows]
            self._reader = ClipReader({name: self.features}, ids, device=parameter.device)
        lengths = torch.from_numpy(self._reader.lengths[name])
        batches = np.split(np.arange(len(rows)), range(BATCH, len(rows), BATCH))
        with _dropping(model, seed, parameter.device), matmul_precision(self.checkpoint.description.precision):
            for places, x in batches_on(parameter.device, self._reader, batches, parameter.dtype):
                parts.append(model.encode(name, x[name], lengths[places])[0].float().cpu().numpy())
        return self.select(np.concatenate(parts))


@contextmanager
def _dropping(model: nn.Module, seed: int, device: torch.device) -> Iterator[None]:
    """Dropout as in training, drawn from the seed; statistics of batches stay as they are."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model.train()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        try:
            yield
        finally:
            model.eval()
