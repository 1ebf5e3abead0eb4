"""Training a segmenter: first-frame supervision, the best epoch chosen on validation clips, resumable at any step."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils import get_total_norm

from hdcid_cli.codes.state import take_up, write_state
from hdcid_cli.core.errors import HdcidError
from hdcid_cli.core.interruption import Interruption
from hdcid_cli.core.loading import prefetch
from hdcid_cli.core.progress import counted, progress, say
from hdcid_cli.core.run_directory import MetricsLog, RunDirectory
from hdcid_cli.models.stored import write_model
from hdcid_cli.tasks.segmentation.augment import augment
from hdcid_cli.tasks.segmentation.avsbench import Reader
from hdcid_cli.tasks.segmentation.directory import SEGMENTER
from hdcid_cli.tasks.segmentation.evaluation import autocast, evaluate, to_device
from hdcid_cli.tasks.segmentation.segmenter import Segmenter
from hdcid_cli.tasks.segmentation.settings import SegmenterTrainSettings
from hdcid_cli.training.cadence import Cadence
from hdcid_cli.training.data import epoch_batches

RISE = 0.03  # of a scheduled training: how long the learning rate rises


def rate(step: int, steps: int, schedule: str) -> float:
    """The learning rate of a step out of so many, as a share of the full one."""
    if schedule == "constant":
        return 1.0
    return min(1.0, (step + 1) / max(RISE * steps, 1)) * 0.5 * (1 + math.cos(math.pi * step / steps))


class SegmenterTrainer:
    """Model, optimizer and position of a run.

    Args:
        steps: of the whole run; a schedule needs to know.

    Attributes:
        step: steps done.
        validated: epochs after which the validation split has been looked at.
        best: {modality: {"epoch", "miou"}} so far.
        loss: sum and number of the losses of this epoch.
    """

    def __init__(self, model: Segmenter, config: SegmenterTrainSettings, device, steps: int = 1):
        self.model, self.config, self.device, self.steps = model.to(device), config, torch.device(device), steps
        model.backbone.requires_grad_(not config.freeze_backbone)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(parameters, lr=config.lr, fused=self.device.type in ("cpu", "cuda"))
        self.step = self.validated = 0
        self.best: dict[str, dict] = {}
        self.loss = torch.zeros(2, device=self.device)

    def mean_loss(self) -> float:
        """Of the steps of this epoch so far."""
        total, steps = self.loss.tolist()
        return total / max(steps, 1)

    def train_step(self, batch: dict, modality: str) -> None:
        """One step on a batch of `Reader.read`; the loss is the mean binary cross-entropy of the frames that have a
        mask.
        """
        pictures, masks = batch["pictures"], batch["masks"]
        self.model.train()
        if self.config.freeze_backbone:
            self.model.backbone.eval()
        # Augmentation and stochastic depth draw from the seed and the step alone, so that a resumed run draws the same.
        torch.manual_seed(int(np.random.SeedSequence([self.config.seed, self.step]).generate_state(1)[0]))
        if self.config.augment:
            pictures, masks = augment(pictures, masks)
        with autocast(self.device, self.config.precision):
            with torch.set_grad_enabled(not self.config.freeze_backbone):
                stages = self.model.stages(pictures)
            logits = self.model.decoder(stages, batch["queries"][modality], wanted=masks.shape[1])
        loss = binary_cross_entropy_with_logits(logits.float(), masks.float())
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * rate(self.step, self.steps, self.config.schedule)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        self.optimizer.step()
        # Gradients that are not finite have spoilt the weights, whatever the loss was.
        self.loss += torch.stack([loss.detach() + torch.where(norm.isfinite(), 0.0, torch.nan), torch.ones_like(loss)])

    def state_dict(self) -> dict:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "validated": self.validated,
            "best": self.best,
            "loss": self.loss,
        }

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.validated, self.best = state["step"], state["validated"], state["best"]
        self.loss.copy_(state["loss"])


def train(
    path: Path,
    model: Segmenter,
    config: dict,
    readers: Mapping[str, Reader],
    modality: str,
    device,
    save_seconds: float = 300.0,
    overwrite: bool = False,
) -> None:
    """Train, or go on training, until `config["train"]["epochs"]` epochs are done.

    An interruption (SIGINT, SIGTERM) saves and raises KeyboardInterrupt; the same call then
    goes on and ends with the weights that an undisturbed run would have.

    Args:
        path: the run's directory.
        model: to start from.
        config: sections `segmenter`, `train` (of SegmenterTrainSettings) and whatever else decides what is learned.
        readers: the clips of "train" and "val"; the latter's `queries` has the modalities by which epochs are chosen.
        modality: of the training queries.
    """
    train, val = readers["train"], readers["val"]
    settings = SegmenterTrainSettings.from_dict(config["train"], f"{path}/config.yaml, train")
    per_epoch = len(epoch_batches(len(train), settings.batch_size, 0, settings.seed))
    steps = settings.epochs * per_epoch
    # At a constant rate more epochs are the same steps and some more.
    free = {("train", "epochs")} if settings.schedule == "constant" else set()
    with RunDirectory(path, SEGMENTER, config, free, overwrite) as directory:
        trainer = SegmenterTrainer(model, settings, device, steps)
        if directory.resumed:
            take_up(path, trainer)
        if trainer.validated >= settings.epochs:
            say(f"{path} has had its {counted(settings.epochs, 'epoch')} already.")
            return
        directory.start()
        if directory.resumed:
            say(f"{path}: going on from step {trainer.step}.")
        else:
            size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
            told = f"{counted(len(train), 'clip')}, {counted(steps, 'step')}, {size:.1f} million parameters"
            say(f"{path}: {told}, on {device}.")
        cadence = Cadence(save_seconds)
        with Interruption() as interruption, directory.metrics("epoch", trainer.validated) as metrics:
            for epoch in range(trainer.validated, settings.epochs):
                _epoch(directory, trainer, train, modality, epoch, per_epoch, cadence, interruption)
                _validate(directory, trainer, val, epoch, metrics, lambda: interruption.asked)
                cadence.saved()


def _epoch(
    directory: RunDirectory,
    trainer: SegmenterTrainer,
    reader: Reader,
    modality: str,
    epoch: int,
    per_epoch: int,
    cadence: Cadence,
    interruption: Interruption,
) -> None:
    """The rest of an epoch."""
    settings = trainer.config
    done = trainer.step - epoch * per_epoch
    batches = epoch_batches(len(reader), settings.batch_size, epoch, settings.seed)[done:]
    if done == 0:
        trainer.loss.zero_()
    with progress(
        total=per_epoch, initial=done, description=f"epoch {epoch + 1}/{settings.epochs}", unit="step"
    ) as bar:
        for batch in prefetch(to_device(reader.read(positions), trainer.device) for positions in batches):
            if batch["clips"]:
                trainer.train_step(batch, modality)
            trainer.step += 1
            bar.update()
            if trainer.step % 10 == 0:
                bar.set_postfix_str(f"loss {trainer.mean_loss():.3f}")
            now = cadence.after(trainer.step, interruption.asked)
            if now.save:
                _save(directory, trainer)
                cadence.saved()
            if now.stop:
                say(f"{directory.path}: stopped after step {trainer.step}; run the same command to go on.")
                raise KeyboardInterrupt


def _validate(
    directory: RunDirectory,
    trainer: SegmenterTrainer,
    reader: Reader,
    epoch: int,
    metrics: MetricsLog,
    stop: Callable[[], bool],
) -> None:
    """Look at the validation split, keep the weights if they are the best so far, and save."""
    settings = trainer.config
    _check_finite(directory, trainer)
    try:
        scores = evaluate(
            trainer.model,
            reader,
            settings.batch_size,
            trainer.device,
            settings.precision,
            description="validation",
            stop=stop,
        )
    except KeyboardInterrupt:
        _save(directory, trainer)
        raise
    found = {name: round(score.miou, 4) for name, score in scores.items()}
    better = [name for name, miou in found.items() if miou > trainer.best.get(name, {"miou": -1})["miou"]]
    trainer.best |= {name: {"epoch": epoch + 1, "miou": found[name]} for name in better}
    trainer.validated = epoch + 1
    loss = round(trainer.mean_loss(), 6)
    values = {f"miou/{name}": miou for name, miou in found.items()}
    metrics.write({"epoch": epoch + 1, "step": trainer.step, "loss": loss, **values})
    _save(directory, trainer, better)
    said = ", ".join(f"{miou:.1f} ({name})" for name, miou in found.items())
    say(f"epoch {epoch + 1}: loss {loss:.4f}, mIoU on val {said}")


def _save(directory: RunDirectory, trainer: SegmenterTrainer, better: Sequence[str] = ()) -> None:
    """Save the state, and before it the weights for those whose best epoch this is."""
    _check_finite(directory, trainer)
    state = trainer.state_dict()
    files = {f"best-{name}.safetensors": lambda file: write_model(file, trainer.model) for name in better}
    directory.save({**files, "state.pt": lambda file: write_state(file, state)})


def _check_finite(directory: RunDirectory, trainer: SegmenterTrainer) -> None:
    if not np.isfinite(trainer.mean_loss()):
        raise HdcidError(
            f"At step {trainer.step} the loss is not finite; {directory.path} keeps its last good state: try a "
            "smaller --lr or --precision float32."
        )
