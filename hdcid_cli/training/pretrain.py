"""One pretraining run from feature files to a checkpoint directory, resumable at every step."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hdcid_cli import __version__
from hdcid_cli.codes.checkpoint import CHECKPOINT, CLIPS, clip_list
from hdcid_cli.codes.state import take_up, write_state
from hdcid_cli.core.device import resolve_device
from hdcid_cli.core.distributed import World, join_world, main_process_talks
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureFile, open_features
from hdcid_cli.core.files import read_text
from hdcid_cli.core.interruption import Interruption
from hdcid_cli.core.loading import ClipReader, batches_on
from hdcid_cli.core.precision import has_bfloat16, kernels
from hdcid_cli.core.progress import counted, progress, say, warn
from hdcid_cli.core.run_directory import RunDirectory
from hdcid_cli.core.settings import tell_idle
from hdcid_cli.models.assembled import Model, build_model
from hdcid_cli.models.stored import write_model
from hdcid_cli.training.board import Board, TensorBoard, WeightsAndBiases, require_tensorboard, require_wandb
from hdcid_cli.training.cadence import Cadence
from hdcid_cli.training.captured import CudaRecorder
from hdcid_cli.training.data import common_clips, epoch_batches
from hdcid_cli.training.idle import tell_idle_settings
from hdcid_cli.training.objective import Objective
from hdcid_cli.training.settings import PretrainSettings, TrainSettings, steps_per_epoch
from hdcid_cli.training.speed import Speed
from hdcid_cli.training.telling import CodesInUse, summary, warn_of_collapse
from hdcid_cli.training.trainer import Meter, Trainer, check_finite
from hdcid_cli.training.validation import LEAST_CLIPS, Validation


@dataclass(frozen=True)
class Run:
    """Everything that decides what a run computes, and where it is kept.

    Args:
        modalities: which feature files to read.
        features: their folder.
        output: the checkpoint directory.
        settings: all else; the model's `inputs` come from the files.
        clips: names to learn from, None for all.
        watched: names of validation clips: how well they find each other is measured now and then.
    """

    modalities: tuple[str, ...]
    features: Path
    output: Path
    settings: PretrainSettings = field(default_factory=PretrainSettings)
    clips: frozenset[str] | None = None
    watched: tuple[str, ...] = ()


@main_process_talks()
def pretrain(run: Run) -> Path:
    """Train, or go on training, and return the checkpoint's directory.

    An interruption (SIGINT, SIGTERM) saves and raises KeyboardInterrupt; the same call
    then goes on and ends with the weights that an undisturbed run would have.
    """
    if run.settings.run.tensorboard:
        require_tensorboard()  # if it is missing, this is said before anything is touched
    if run.settings.run.wandb:
        require_wandb()
    files = {name: open_features(run.features, name) for name in run.modalities}
    device = resolve_device(run.settings.run.device)
    world = join_world(device)
    try:
        with kernels(run.settings.run.deterministic):
            return _pretrain(run, files, device, world)
    finally:
        world.close()
        for file in files.values():
            file.close()


def _pretrain(run: Run, files: dict[str, FeatureFile], device: torch.device, world: World) -> Path:
    settings = run.settings
    ids = common_clips(files, run.clips)
    train = settings.train.resolved(len(ids), has_bfloat16(device))
    if device.type == "mps" and train.precision == "float64":
        raise InputError("--precision float64: an Apple GPU has none; use float32, or --device cpu.")
    joined = train.warmup * (settings.model.trained_layers - 1) + 1
    if joined > train.epochs:
        say(
            f"With --warmup {train.warmup} and --epochs {train.epochs} not every layer gets to learn; {joined} epochs "
            "would do."
        )
    if settings.objective.align and min(train.batch_size, len(ids)) < 2:
        warn("in a batch of one clip a contrast has no other to tell it from: take a larger --batch-size.")
    if world.size > 1 and min(train.batch_size, len(ids)) % world.size:
        raise InputError(
            f"--batch-size {min(train.batch_size, len(ids))} should be divisible by the {world.size} processes "
            "of torchrun."
        )
    if world.size > 1 and train.mix and min(train.batch_size, len(ids)) // world.size % 2:
        raise InputError(
            f"--mix lets two clips of one process exchange seconds: --batch-size should be divisible by "
            f"{2 * world.size}."
        )
    architecture = settings.model.but(inputs={name: file.shape[1:] for name, file in files.items()})
    torch.manual_seed(train.seed)
    model = build_model(architecture)
    objective = Objective(settings.objective, model)
    tell_idle_settings(settings, model, objective)
    config = {
        "model": architecture.to_dict(),
        "objective": objective.config.to_dict(),
        "train": train.to_dict(),
        **_describe(files),
        "clips": len(ids),
        "version_of_hdcid": __version__,
    }
    per_epoch = steps_per_epoch(len(ids), train.batch_size)
    trainer = Trainer(model, objective, train, per_epoch, device, world)
    record_steps(trainer, settings.run.graph)
    if world.size > 1:  # other dropout on every rank
        torch.manual_seed(train.seed + 1000 * (world.rank + 1))
    total = train.epochs * per_epoch
    # More epochs of the same are no other run.
    with RunDirectory(
        run.output, CHECKPOINT, config, {("train", "epochs")}, settings.run.overwrite, ("version_of_hdcid",), world
    ) as directory:
        names = clip_list(ids)
        if directory.resumed:
            if read_text(run.output / CLIPS) != names:
                raise InputError(f"{run.output} learned from other clips: choose another --output or use --overwrite.")
            take_up(run.output, trainer)
        if trainer.step_number >= total:
            say(
                f"{run.output} has had its {counted(train.epochs, 'epoch')} already; --epochs trains longer, "
                "--overwrite starts again."
            )
            return run.output
        reader = ClipReader(files, ids, settings.run.cache, device)
        if not directory.resumed:
            fit_standardize(model, reader)
        directory.start({CLIPS: names})
        if directory.resumed:
            say(f"{run.output}: going on from step {trainer.step_number}.")
        else:
            size = sum(p.numel() for p in model.parameters())
            told = f"{counted(len(ids), 'clip')}, {counted(total, 'step')}, {size / 1e6:.1f} million parameters"
            say(f"{run.output}: {told}, on {device}.")
        validation = Validation(files, run.watched, settings.run.validate_every, world.is_main)
        if settings.run.validate_every and not validation.every:
            tell_idle(settings.run, ["validate_every"], f"there are fewer than {LEAST_CLIPS} validation clips")
        _loop(run, directory, trainer, reader, validation, total)
    return run.output


def record_steps(trainer: Trainer, asked: str) -> None:
    """Record and play steps, as `--graph` asks for; where that cannot be, `auto` says so and computes them.

    Raises:
        InputError: "on" is asked for, and steps cannot be recorded.
    """
    obstacle = None
    if trainer.device.type != "cuda":
        obstacle = f"CUDA does it, and this run computes on {trainer.device}"
    elif trainer.world.size > 1:
        obstacle = "several processes talk to each other in them"
    elif trainer.model.config.padding == "mask":
        obstacle = "--padding mask reads as much of a text as it has words"

    def refused(reason: str) -> None:
        if asked == "on":
            raise InputError(f"--graph on: steps cannot be recorded, as {reason}; use --graph auto.")
        warn(f"Steps are not recorded (--graph), as {reason}: they are computed one operator at a time.")

    if obstacle and asked == "on":
        refused(obstacle)
    if asked != "off" and not obstacle:
        trainer.capture(CudaRecorder(trainer.device), refused)


def _describe(files: dict[str, FeatureFile]) -> dict:
    """What the features are, as `config.yaml` keeps it."""
    return {
        "features": {
            name: {
                "backbone": file.backbone,
                "weights": file.weights,
                "segment_seconds": file.segment_seconds,
                "digest": file.digest,
            }
            for name, file in files.items()
        }
    }


def fit_standardize(model: Model, reader: ClipReader, sample: int = 512) -> None:
    """Give the model the mean and deviation of every feature channel, from `sample` clips spread over all."""
    count = len(reader.ids)
    positions = sorted({i * count // min(sample, count) for i in range(min(sample, count))})
    features = reader.read(positions)
    for name, standardize in model.standardize.items():
        x = torch.as_tensor(features[name])
        if model.config.padding == "mask":
            x = x[torch.arange(x.shape[1]) < torch.from_numpy(reader.lengths[name][positions]).unsqueeze(1)]
        standardize.fit(x.to(next(model.parameters()).device))


def _loop(
    run: Run, directory: RunDirectory, trainer: Trainer, reader: ClipReader, validation: Validation, total: int
) -> None:
    """The steps that are left, and what is logged and saved between them."""
    settings = run.settings.run
    world, per_epoch, first = trainer.world, trainer.steps_per_epoch, trainer.step_number
    codes = trainer.model.code_layers[0].quantizer.codes
    meter, in_use = Meter(codes), CodesInUse(codes)
    speed = Speed(trainer, min(trainer.config.batch_size, len(reader.ids)))
    cadence = Cadence(*settings.saving, settings.log_every, total, world)
    # Entered before anything is begun: from here on an interruption saves.
    with (
        Interruption() as interruption,
        directory.metrics("step", first) as metrics,
        _board(run, directory, first) as board,
        progress(total=total, initial=first, description="pretrain", unit="step") as bar,
    ):
        batches = _batches(len(reader.ids), trainer.config, first, per_epoch, world)
        for positions, features in batches_on(trainer.device, reader, batches, trainer.dtype, speed.waits):
            epoch = trainer.step_number // per_epoch
            with speed.step(epoch):
                measured = trainer.step(features, epoch, _lengths(trainer, reader, positions))
            meter.add(measured)
            if epoch + 1 == trainer.config.epochs:
                in_use.add(measured)
            bar.update()
            step = trainer.step_number
            now, looks = cadence.after(step, interruption.asked), validation.due(step, total)
            if now.log or looks:
                rates = speed.take()  # first, as whatever else is asked of the device waits for it too
                means = meter.take()
                check_finite(means, step)
                record = {"step": step, "epoch": step / per_epoch, "lr": trainer.learning_rate(step - 1), **means}
                record |= rates
                if looks and world.is_main:
                    with speed.apart():
                        record |= validation.measure(trainer.model, trainer.started)
                metrics.write(record)
                board.write(record)
                bar.set_postfix_str(summary(record))
                if (step % settings.log_every == 0 or total < settings.log_every) and total <= 2 * step < total + 40:
                    warn_of_collapse(record)
            if now.save:
                _save(directory, trainer, settings.keep)
                cadence.saved()
            if now.stop:
                say(f"{run.output}: stopped after step {step} of {total}; run the same command to go on.")
                raise KeyboardInterrupt
    in_use.warn()
    if told := speed.told():
        say(told)


def _board(run: Run, directory: RunDirectory, first: int) -> Board:
    """Where the main process's records go besides `metrics.jsonl`."""
    place, settings = directory.place, run.settings.run
    wanted = [
        (settings.tensorboard, lambda: TensorBoard(place, first)),
        (settings.wandb, lambda: WeightsAndBiases(place, first, run.output.name, directory.config)),
    ]
    return Board(*(begin for asked, begin in wanted if asked and directory.world.is_main))


def _lengths(trainer: Trainer, reader: ClipReader, positions: np.ndarray) -> dict[str, Tensor] | None:
    """Valid segments of the batch's clips, where they matter."""
    if trainer.model.config.padding != "mask" or not reader.padded:
        return None
    return {name: torch.from_numpy(length[positions]) for name, length in reader.lengths.items()}


def _batches(count: int, config: TrainSettings, start: int, per_epoch: int, world: World) -> Iterator[np.ndarray]:
    """This rank's part of every global batch from step `start` on."""
    for epoch in range(start // per_epoch, config.epochs):
        for number, batch in enumerate(epoch_batches(count, config.batch_size, epoch, config.seed)):
            if epoch * per_epoch + number >= start:
                share = len(batch) // world.size
                yield batch[world.rank * share : (world.rank + 1) * share]


def _save(directory: RunDirectory, trainer: Trainer, keep: int) -> None:
    """The state comes last: a crash before it leaves the earlier one, from which everything else is made again."""
    state = trainer.state_dict()  # of all processes
    version = f"steps/{trainer.step_number:09d}.safetensors"

    def link(temporary: Path) -> None:
        temporary.unlink()
        os.link(directory.place / "model.safetensors", temporary)

    directory.save(
        {
            "model.safetensors": lambda file: write_model(file, trainer.model),
            **({version: link} if keep else {}),
            "state.pt": lambda file: write_state(file, state),
        }
    )
    if keep and trainer.world.is_main:
        for old in sorted(directory.path.glob("steps/*.safetensors"))[:-keep]:
            old.unlink()
