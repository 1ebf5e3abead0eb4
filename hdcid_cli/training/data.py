"""Batches of clips from feature files, for training and encoding."""

import queue
import threading
from collections.abc import Iterable, Iterator, Set

import numpy as np
import psutil
import torch
from torch import Tensor

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureFile
from hdcid_cli.core.progress import progress, warn

# `--cache auto` keeps features in memory if they take no more than this share of what is free.
MEMORY_SHARE = 0.4


def common_clips(features: dict[str, FeatureFile], chosen: Set[str] | None = None) -> list[str]:
    """Names of the clips that every modality has (and `chosen` holds), in the first file's order.

    Clips that only some files have are counted on stderr; none in common is an InputError.
    """
    files = list(features.values())
    everywhere = set(files[0].ids).intersection(*(file.ids for file in files[1:]))
    if not everywhere:
        names = ", ".join(file.name for file in files)
        example = ", ".join(f"{file.ids[0]!r}" for file in files)
        raise InputError(
            f"{names} have no clip in common (their first ids: {example}): extract them from the same media."
        )
    for file in files:
        alone = len(file) - len(everywhere)
        if alone:
            warn(f"{alone} of {len(file)} clips in {file.name} are left out: not every modality has them.")
    ids = [name for name in files[0].ids if name in everywhere and (chosen is None or name in chosen)]
    if not ids:
        raise InputError("The split leaves no clip to train on: its names are not those of the feature files.")
    return ids


class ClipReader:
    """Features of clips by position, from memory or from the files.

    Args:
        features: open feature files by modality.
        ids: the clips, position by position.
        cache: "ram" reads everything once, "none" reads every batch from the files, "auto" decides by size;
            "device" reads everything once and keeps it where the model computes.
        device: of the model, for "device".
    """

    def __init__(self, features: dict[str, FeatureFile], ids: list[str], cache: str = "auto", device=None):
        self.features = features
        self.ids = ids
        self.rows = {name: file.rows(ids) for name, file in features.items()}
        self.lengths = {name: file.length[self.rows[name]] for name, file in features.items()}
        self.bytes = len(ids) * sum(int(np.prod(file.shape)) * file.dtype.itemsize for file in features.values())
        self.arrays = None
        if cache == "device":
            _check_room(self.bytes, device)
        if cache in ("ram", "device") or (
            cache == "auto" and self.bytes < MEMORY_SHARE * psutil.virtual_memory().available
        ):
            self.arrays = {name: np.empty((len(ids), *file.shape), file.dtype) for name, file in features.items()}
            for name, file in features.items():
                for start in progress(range(0, len(ids), 256), description=f"reading {name}", unit="batch"):
                    rows = self.rows[name][start : start + 256]
                    file.read(rows, out=self.arrays[name][start : start + len(rows)])
                if cache == "device":
                    self.arrays[name] = torch.from_numpy(self.arrays[name]).to(device)

    @property
    def padded(self) -> bool:
        """Whether any clip has fewer valid segments than its features have."""
        return any((length < self.features[name].shape[0]).any() for name, length in self.lengths.items())

    def read(self, positions: Iterable[int]) -> dict[str, np.ndarray | Tensor]:
        """Features of the given positions, {modality: [n, T, ...]}; tensors with `cache: device`, arrays otherwise."""
        positions = list(positions)
        if self.arrays is not None:
            return {name: array[positions] for name, array in self.arrays.items()}
        return {name: file.read([self.rows[name][p] for p in positions]) for name, file in self.features.items()}


def _check_room(size: int, device) -> None:
    """An InputError if a GPU has no room for so many bytes of features beside a model."""
    if torch.device(device).type != "cuda":
        return
    free = torch.cuda.mem_get_info(device)[0]
    if size > 0.8 * free:
        raise InputError(
            f"The features take {size / 2**30:.1f} GiB, and {device} has {free / 2**30:.1f} GiB free: use --cache ram."
        )


def prefetch(reader: ClipReader, batches: Iterable[np.ndarray], to_device, ahead: int = 3) -> Iterator:
    """Yield (positions, tensors of the batch) while a thread reads the next ones.

    Args:
        batches: positions of each batch.
        to_device: turns {modality: array} into what the caller computes with.
    """
    ready: queue.Queue = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def put(item) -> None:
        while not stop.is_set():  # nobody may be taking any more
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def fill():
        try:
            for positions in batches:
                put((positions, to_device(reader.read(positions))))
                if stop.is_set():
                    return
            put(None)
        except BaseException as error:  # raised again where the batches are used
            put(error)

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def epoch_batches(count: int, batch: int, epoch: int, seed: int) -> list[np.ndarray]:
    """Positions of every batch of an epoch, shuffled by seed and epoch alone, so that a resumed run sees the same.

    Every batch is full; the clips left over are others in every epoch. Fewer clips than
    one batch are one batch.
    """
    order = np.random.default_rng([seed, epoch]).permutation(count)
    batch = min(batch, count)
    return [order[start : start + batch] for start in range(0, count - batch + 1, batch)]
