"""One pretraining run from feature files to a checkpoint directory, resumable at every step."""

import json
import os
import shutil
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch

from hdcid_cli import __version__
from hdcid_cli.codes import checkpoint as checkpoints
from hdcid_cli.core.device import resolve_device
from hdcid_cli.core.distributed import World, join_world
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureFile, open_features
from hdcid_cli.core.files import write_text
from hdcid_cli.core.interruption import Interruption
from hdcid_cli.core.progress import progress, say, warn
from hdcid_cli.models.config import ModelConfig
from hdcid_cli.models.hdcid import HDCID
from hdcid_cli.training.data import ClipReader, common_clips, epoch_batches, prefetch
from hdcid_cli.training.objective import Objective, ObjectiveConfig
from hdcid_cli.training.speed import Speed
from hdcid_cli.training.trainer import Meter, TrainConfig, Trainer, check_finite, to_tensors


@dataclass(frozen=True)
class Run:
    """Everything that decides what a run computes, and where it is kept.

    Args:
        model, objective, train: options for the three configurations; `inputs` comes from the files.
        modalities: which feature files to read.
        features: their folder.
        output: the checkpoint directory.
        clips: names to learn from, None for all.
        save_seconds: least time between two saves (there is always one at the end).
        save_steps: save after every so many steps instead.
        log_every: steps between two metrics records.
        keep: how many older versions of the model to keep in `steps/`.
        tensorboard: write the metrics for TensorBoard too, in `tensorboard/`.
    """

    modalities: tuple[str, ...]
    features: Path
    output: Path
    model: dict = field(default_factory=dict)
    objective: dict = field(default_factory=dict)
    train: dict = field(default_factory=dict)
    clips: frozenset[str] | None = None
    device: str = "auto"
    cache: str = "auto"
    compile: bool = False
    tensorboard: bool = False
    save_seconds: float = 300.0
    save_steps: int | None = None
    log_every: int = 20
    keep: int = 0
    overwrite: bool = False


def pretrain(run: Run) -> Path:
    """Train, or go on training, and return the checkpoint's directory.

    An interruption (SIGINT, SIGTERM) saves and raises KeyboardInterrupt; the same call
    then goes on and ends with the weights that an undisturbed run would have.
    """
    if run.tensorboard:
        _summary_writer()  # if it is missing, this is said before anything is touched
    files = {name: open_features(run.features, name) for name in run.modalities}
    device = resolve_device(run.device)
    world = join_world(device)
    try:
        return _pretrain(run, files, device, world)
    finally:
        world.close()
        for file in files.values():
            file.close()


def _pretrain(run: Run, files: dict[str, FeatureFile], device: torch.device, world: World) -> Path:
    ids = common_clips(files, run.clips)
    train = TrainConfig(**run.train)
    if world.size > 1 and min(train.batch_size, len(ids)) % world.size:
        raise InputError(
            f"--batch-size {min(train.batch_size, len(ids))} should be divisible by the {world.size} processes "
            "of torchrun."
        )
    config = {
        "model": ModelConfig(inputs={name: file.shape[1:] for name, file in files.items()}, **run.model).to_dict(),
        "objective": ObjectiveConfig(**run.objective).to_dict(),
        "train": train.to_dict(),
        "features": {
            name: {
                "backbone": file.backbone,
                "weights": file.weights,
                "segment_seconds": file.segment_seconds,
                "digest": file.digest,
            }
            for name, file in files.items()
        },
        "clips": len(ids),
        "version_of_hdcid": __version__,
    }
    torch.manual_seed(train.seed)
    model = HDCID(ModelConfig.from_dict(config["model"]))
    objective = Objective(ObjectiveConfig(**config["objective"]), model)
    steps_per_epoch = len(epoch_batches(len(ids), train.batch_size, 0, 0))
    trainer = Trainer(model, objective, train, steps_per_epoch, device, world)
    if world.size > 1:  # other dropout on every rank
        torch.manual_seed(train.seed + 1000 * (world.rank + 1))
    total = train.epochs * steps_per_epoch
    resumed = _prepare(run, config, trainer, ids, world)
    if trainer.step_number >= total:
        say(
            f"{run.output} has had its {train.epochs} epochs already; --epochs trains longer, --overwrite starts again."
        )
        return run.output
    if world.is_main and not resumed:
        size = sum(p.numel() for p in model.parameters())
        say(f"{run.output}: {len(ids)} clips, {total} steps, {size / 1e6:.1f} million parameters, on {device}.")
    reader = ClipReader(files, ids, run.cache, device)
    if not resumed:
        fit_standardize(model, reader)
    if run.compile:
        model.compile()
    _loop(run, trainer, reader, total, world)
    return run.output


def fit_standardize(model: HDCID, reader: ClipReader, sample: int = 512) -> None:
    """Give the model the mean and deviation of every feature channel, from `sample` clips spread over all."""
    count = len(reader.ids)
    positions = sorted({i * count // min(sample, count) for i in range(min(sample, count))})
    features = reader.read(positions)
    for name, standardize in model.standardize.items():
        x = torch.as_tensor(features[name])
        if model.config.padding == "mask":
            x = x[torch.arange(x.shape[1]) < torch.from_numpy(reader.lengths[name][positions]).unsqueeze(1)]
        standardize.fit(x.to(next(model.parameters()).device))


def _prepare(run: Run, config: dict, trainer: Trainer, ids: list[str], world: World) -> bool:
    """Make the directory, or load the state of an earlier run of the same configuration into the trainer."""
    path = run.output
    if (path / "config.yaml").exists() and not run.overwrite:
        previous = checkpoints.read_checkpoint_config(path)
        changed = differences(previous, config)
        if changed:
            raise InputError(
                f"{path} was trained with other settings ({'; '.join(changed[:3])}): choose another --output or use "
                "--overwrite."
            )
        state = checkpoints.load_state(path)
        if state is not None:
            trainer.load_state_dict(state)
            if world.is_main:
                _truncate_metrics(path / "metrics.jsonl", trainer.step_number)
                checkpoints.write_config(path, config)
                say(f"{path}: going on from step {trainer.step_number}.")
            return True
    elif path.exists() and any(path.iterdir()) and not run.overwrite:
        raise InputError(f"{path} exists and is not a checkpoint directory: choose another --output.")
    world.barrier()
    if world.is_main:
        path.mkdir(parents=True, exist_ok=True)
        for name in ("model.safetensors", "state.pt", "metrics.jsonl", "toc.json"):
            (path / name).unlink(missing_ok=True)
        shutil.rmtree(path / "tensorboard", ignore_errors=True)
        write_text(path / "clips.txt", "".join(f"{name}\n" for name in ids))
        checkpoints.write_config(path, config)
    world.barrier()
    return False


def differences(previous: dict, config: dict) -> list[str]:
    """Settings in which two configurations differ, as sentences; more epochs are no difference."""
    found = []
    for section in ("model", "objective", "train", "features"):
        before, now = previous.get(section) or {}, config[section]
        for key in {**before, **now}:
            if (section, key) != ("train", "epochs") and before.get(key) != now.get(key):
                found.append(
                    f"{key} was {before.get(key)!r}, now {now.get(key)!r}"
                    if section != "features"
                    else f"other {key} features"
                )
    if previous.get("clips") != config["clips"]:
        found.append(f"{previous.get('clips')} clips then, {config['clips']} now")
    return found


def _loop(run: Run, trainer: Trainer, reader: ClipReader, total: int, world: World) -> None:
    config, per_epoch = trainer.config, trainer.steps_per_epoch
    convert = to_tensors(trainer.device, trainer.dtype)
    meter = Meter(trainer.model.layers[0].quantizer.codebook.shape[1])
    speed = Speed(trainer, min(config.batch_size, len(reader.ids)), count=not run.compile)
    saved = time.monotonic()
    stop = due = False
    board = nullcontext()
    if run.tensorboard and world.is_main:
        board = _summary_writer()(run.output / "tensorboard", purge_step=trainer.step_number + 1)
    bar = progress(total=total, initial=trainer.step_number, description="pretrain", unit="step")
    # Before anything is begun: from here on an interruption saves.
    with (
        Interruption() as interruption,
        open(run.output / "metrics.jsonl" if world.is_main else os.devnull, "a", encoding="utf-8") as metrics,
        bar,
        board,
    ):
        batches = _batches(len(reader.ids), config, trainer.step_number, total, per_epoch, world)
        masked = trainer.model.config.padding == "mask" and reader.padded
        for positions, features in prefetch(reader, batches, convert):
            lengths = (
                {name: torch.from_numpy(length[positions]) for name, length in reader.lengths.items()}
                if masked
                else None
            )
            epoch = trainer.step_number // per_epoch
            with speed.step(epoch):
                meter.add(trainer.step(features, epoch, lengths))
            bar.update()
            step = trainer.step_number
            if world.size == 1 or step % run.log_every == 0:  # several processes agree at the logging steps alone
                stop = world.any(interruption.asked)
                due = not run.save_steps and world.any(time.monotonic() - saved > run.save_seconds)
            if run.save_steps:
                due = step % run.save_steps == 0
            saving = stop or due or step == total
            if saving or step % run.log_every == 0:  # at every save too: what is not finite is never kept
                record = meter.take()
                check_finite(record, step)
                record = {
                    "step": step,
                    "epoch": step / per_epoch,
                    "lr": trainer.learning_rate(step - 1),
                    **record,
                    **speed.take(),
                }
                metrics.write(json.dumps(_rounded(record)) + "\n")
                metrics.flush()
                if run.tensorboard and world.is_main:
                    for name, value in record.items():
                        board.add_scalar(name, value, step)
                bar.set_postfix_str(_summary(record))
                if step % run.log_every == 0 or total < run.log_every:
                    _warn_of_collapse(record, step, total)
            if saving:
                _save(run, trainer, world)
                saved, due = time.monotonic(), False
            if stop and step < total:
                if world.is_main:
                    say(f"{run.output}: stopped after step {step} of {total}; run the same command to go on.")
                raise KeyboardInterrupt


def _summary_writer():
    """TensorBoard's writer; an InputError if its package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError("--tensorboard needs another package: pip install 'hdcid[tensorboard]'.") from error
    return SummaryWriter


def _batches(count: int, config: TrainConfig, start: int, total: int, per_epoch: int, world: World):
    """This rank's part of every global batch from step `start` on."""
    for epoch in range(start // per_epoch, config.epochs):
        for number, batch in enumerate(epoch_batches(count, config.batch_size, epoch, config.seed)):
            if epoch * per_epoch + number >= start:
                share = len(batch) // world.size
                yield batch[world.rank * share : (world.rank + 1) * share]


def _save(run: Run, trainer: Trainer, world: World) -> None:
    """The state comes last: a crash before it leaves the earlier one, from which everything else is made again."""
    state = trainer.state_dict()
    if world.is_main:
        checkpoints.save_model(run.output, trainer.model)
        checkpoints.mark_latest(run.output)
        if run.keep:
            _keep_step(run.output, trainer.step_number, run.keep)
        checkpoints.save_state(run.output, state)
    world.barrier()


def _keep_step(path: Path, step: int, keep: int) -> None:
    """Hard-link the model under its step's name in `steps/`, and remove all but the newest `keep`."""
    steps = path / "steps"
    steps.mkdir(exist_ok=True)
    target = steps / f"{step:09d}.safetensors"
    target.unlink(missing_ok=True)
    os.link(path / "model.safetensors", target)
    for old in sorted(steps.glob("*.safetensors"))[:-keep]:
        old.unlink()


def _truncate_metrics(path: Path, step: int) -> None:
    """Drop the records of steps that will be done again."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_text(path, "".join(line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step))


def _rounded(record: dict) -> dict:
    return {name: float(f"{value:.9g}") if isinstance(value, float) else value for name, value in record.items()}


def _summary(record: dict) -> str:
    """What the progress bar shows: loss, codes in use, agreement."""
    used = "/".join(str(value) for name, value in record.items() if name.startswith("used/1/"))
    agreement = [value for name, value in record.items() if name.startswith("agreement/1/")]
    agree = f", {100 * sum(agreement) / len(agreement):.0f} % agree" if agreement else ""
    rate = (
        f", {record['flops_per_second'] / 1e9:.0f} GFLOP/s ({100 * record['share_of_peak']:.0f} % of peak)"
        if "share_of_peak" in record
        else ""
    )
    return f"loss {record['loss']:.2f}, {used} codes{agree}{rate}"


def _warn_of_collapse(record: dict, step: int, total: int) -> None:
    """A codebook that has shrunk to a few codes half-way through will not open by itself."""
    if step * 2 < total or step * 2 >= total + 40:
        return
    few = [name.partition("/")[2] for name, value in record.items() if name.startswith("used/") and value < 4]
    if few:
        warn(
            f"fewer than 4 codes are in use for {', '.join(few)}: the codebook has collapsed; try --codebook-start "
            "data or a smaller --lr."
        )
