"""Training a segmenter: first-frame supervision, the best epoch chosen on the validation split, resumable at any step.

A run is a directory:

    config.yaml               everything that decides what is learned
    state.pt                  weights, optimizer and position, all that a resumed run needs
    best-audio.safetensors    weights of the best epoch, judged by the validation split's sounds (`best-text`: prompts)
    metrics.jsonl             one record an epoch: loss, and mIoU on the validation split
"""

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils import get_total_norm

from hdcid_cli.codes.checkpoint import load_state, save_state
from hdcid_cli.core.errors import HdcidError, InputError
from hdcid_cli.core.files import atomic_path, write_text
from hdcid_cli.core.interruption import Interruption
from hdcid_cli.core.progress import progress, say
from hdcid_cli.tasks.segmentation.augment import augment
from hdcid_cli.tasks.segmentation.avsbench import Reader
from hdcid_cli.tasks.segmentation.evaluation import autocast, evaluate, to_device
from hdcid_cli.tasks.segmentation.segmenter import Segmenter, SegmenterConfig
from hdcid_cli.training.data import epoch_batches, prefetch

FORMAT = "hdcid-segmenter"
VERSION = 2
RISE = 0.03  # of a scheduled training: how long the learning rate rises


@dataclass(frozen=True)
class TrainConfig:
    """How a segmenter is trained; the defaults are AVSBench's.

    Args:
        epochs, batch_size, lr, seed: as usual, with Adam.
        freeze_backbone: leave the picture encoder as it is.
        augment: mirror and crop the training pictures at random (not published).
        schedule: of the learning rate, "constant" (as published) or "cosine": a short rise, then down to zero
            in the last step, so that the last epochs settle; longer training is another training then.
        precision: "float32" or "bf16" (mixed).
    """

    epochs: int = 15
    batch_size: int = 4
    lr: float = 1e-4
    freeze_backbone: bool = False
    augment: bool = False
    schedule: str = "constant"
    precision: str = "float32"
    seed: int = 0


def write_config(path: Path, config: dict) -> None:
    """Write `config.yaml` of a segmenter's directory."""
    import yaml

    write_text(
        path / "config.yaml",
        yaml.safe_dump({"format": FORMAT, "version": VERSION, **config}, sort_keys=False, allow_unicode=True),
    )


def read_config(path: Path) -> dict:
    """`config.yaml` of a segmenter's directory; anything else is an InputError."""
    import yaml

    try:
        config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            f"There is no trained segmenter in {path}: make one with `hdcid segment --train a`."
        ) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT or config.get("version") != VERSION:
        raise InputError(
            f"{path} is not a segmenter's directory (its config.yaml does not say format {FORMAT}, version {VERSION})."
        )
    return config


def find_segmenter(where: Path | None, folder: Path) -> Path:
    """The directory itself, or that name in the folder of checkpoints; the newest `segment-*` there if None."""
    if where is not None:
        return where if (where / "config.yaml").exists() else folder / where
    found = [path for path in folder.glob("segment-[at]") if any(path.glob("best-*.safetensors"))]
    if not found:
        raise InputError(
            f"There is no trained segmenter in {folder}/: make one with `hdcid segment --train a --test a`, or name "
            "one with --segmenter."
        )
    return max(found, key=lambda path: (path / "state.pt").stat().st_mtime)


def load_segmenter(path: Path, modality: str, device) -> Segmenter:
    """The trained model whose epoch was chosen with the validation queries of a modality."""
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    model = Segmenter(SegmenterConfig(**read_config(path)["segmenter"]))
    file = path / f"best-{modality}.safetensors"
    if not file.exists():
        raise InputError(f"{path} holds no finished epoch yet: run its `hdcid segment` again.")
    try:
        load_model(model, file)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise InputError(f"{file} does not fit {path / 'config.yaml'} ({str(error).splitlines()[0]}).") from error
    return model.to(device).eval().requires_grad_(False)


def rate(step: int, steps: int, schedule: str) -> float:
    """The learning rate of a step out of so many, as a share of the full one."""
    if schedule == "constant":
        return 1.0
    return min(1.0, (step + 1) / max(RISE * steps, 1)) * 0.5 * (1 + math.cos(math.pi * step / steps))


class Trainer:
    """Model, optimizer and position of a run.

    Args:
        steps: of the whole run; a schedule needs to know.

    Attributes:
        step: steps done.
        validated: epochs after which the validation split has been looked at.
        best: {modality: {"epoch", "miou"}} so far.
        loss: sum and number of the losses of this epoch.
    """

    def __init__(self, model: Segmenter, config: TrainConfig, device, steps: int = 1):
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
    train: Reader,
    val: Reader,
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
        config: sections `segmenter`, `train` (of TrainConfig) and whatever else decides what is learned.
        train, val: the clips; `val.queries` has the modalities by which epochs are chosen.
        modality: of the training queries.
    """
    settings = TrainConfig(**config["train"])
    state = _prepare(path, config, overwrite)
    per_epoch = len(epoch_batches(len(train), settings.batch_size, 0, settings.seed))
    if state is not None and state["validated"] >= settings.epochs:
        say(f"{path} has had its {settings.epochs} epochs already.")
        return
    trainer = Trainer(model, settings, device, settings.epochs * per_epoch)
    if state is not None:
        trainer.load_state_dict(state)
        _truncate_metrics(path / "metrics.jsonl", trainer.validated)
        say(f"{path}: going on from step {trainer.step}.")
    else:
        size = sum(parameter.numel() for parameter in trainer.model.parameters())
        say(
            f"{path}: {len(train)} clips, {settings.epochs * per_epoch} steps, {size / 1e6:.1f} million parameters, "
            f"on {device}."
        )
    with Interruption() as interruption:
        for epoch in range(trainer.validated, settings.epochs):
            _epoch(path, trainer, train, modality, epoch, per_epoch, save_seconds, interruption)
            _validate(path, trainer, val, epoch, interruption)


def _prepare(path: Path, config: dict, overwrite: bool) -> dict | None:
    """Make the directory, or return the state of an earlier run with the same configuration."""
    if (path / "config.yaml").exists() and not overwrite:
        changed = differences(read_config(path), config)
        if changed:
            raise InputError(
                f"{path} was trained with other settings ({'; '.join(changed[:3])}): choose another --output or use "
                "--overwrite."
            )
        write_config(path, config)
        return load_state(path)
    if path.exists() and (not path.is_dir() or (not (path / "config.yaml").exists() and any(path.iterdir()))):
        raise InputError(f"{path} exists and is not a segmenter's directory: choose another --output.")
    path.mkdir(parents=True, exist_ok=True)
    for file in [path / "state.pt", path / "metrics.jsonl", *path.glob("best-*.safetensors")]:
        file.unlink(missing_ok=True)
    write_config(path, config)
    return None


def differences(previous: dict, config: dict) -> list[str]:
    """Settings in which two configurations differ, as sentences; more epochs at a constant rate are no difference."""
    found = []
    for section, values in config.items():
        before = previous.get(section)
        if not isinstance(values, dict) or not isinstance(before, dict):
            if before != values:
                found.append(f"{section} was {before!r}, now {values!r}")
            continue
        for key in {**before, **values}:
            old, new = before.get(key), values.get(key)
            if old == new or (key == "epochs" and new > old and values.get("schedule") == "constant"):
                continue
            plain = isinstance(new, (str, int, float, bool)) and isinstance(old, (str, int, float, bool))
            found.append(f"{key} was {old!r}, now {new!r}" if plain else f"other {key}")
    return found


def _epoch(
    path, trainer: Trainer, reader: Reader, modality: str, epoch: int, per_epoch: int, save_seconds: float, interruption
) -> None:
    """The rest of an epoch."""
    settings = trainer.config
    done = trainer.step - epoch * per_epoch
    batches = epoch_batches(len(reader), settings.batch_size, epoch, settings.seed)[done:]
    saved = time.monotonic()
    if done == 0:
        trainer.loss.zero_()
    with progress(
        total=per_epoch, initial=done, description=f"epoch {epoch + 1}/{settings.epochs}", unit="step"
    ) as bar:
        for _, batch in prefetch(reader, batches, lambda batch: to_device(batch, trainer.device)):
            if batch["clips"]:
                trainer.train_step(batch, modality)
            trainer.step += 1
            bar.update()
            if trainer.step % 10 == 0:
                bar.set_postfix_str(f"loss {trainer.mean_loss():.3f}")
            if interruption.asked or time.monotonic() - saved > save_seconds:
                _save(path, trainer)
                saved = time.monotonic()
            if interruption.asked:
                say(f"{path}: stopped after step {trainer.step}; run the same command to go on.")
                raise KeyboardInterrupt


def _validate(path: Path, trainer: Trainer, reader: Reader, epoch: int, interruption) -> None:
    """Look at the validation split, keep the weights if they are the best so far, and save."""
    settings = trainer.config
    _check_finite(path, trainer)
    try:
        scores = evaluate(
            trainer.model,
            reader,
            settings.batch_size,
            trainer.device,
            settings.precision,
            description="validation",
            stop=lambda: interruption.asked,
        )
    except KeyboardInterrupt:
        _save(path, trainer)
        raise
    found = {name: round(score.miou, 4) for name, score in scores.items()}
    for name, miou in found.items():
        if name not in trainer.best or miou > trainer.best[name]["miou"]:
            trainer.best[name] = {"epoch": epoch + 1, "miou": miou}
            _save_weights(path / f"best-{name}.safetensors", trainer.model)
    trainer.validated = epoch + 1
    record = {
        "epoch": epoch + 1,
        "step": trainer.step,
        "loss": round(trainer.mean_loss(), 6),
        **{f"miou/{name}": miou for name, miou in found.items()},
    }
    with open(path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    _save(path, trainer)
    say(
        f"epoch {epoch + 1}: loss {record['loss']:.4f}, mIoU on val "
        + ", ".join(f"{miou:.1f} ({name})" for name, miou in found.items())
    )


def _save(path: Path, trainer: Trainer) -> None:
    _check_finite(path, trainer)
    save_state(path, trainer.state_dict())


def _check_finite(path: Path, trainer: Trainer) -> None:
    if not np.isfinite(trainer.mean_loss()):
        raise HdcidError(
            f"At step {trainer.step} the loss is not finite; {path} keeps its last good state: try a smaller --lr or "
            "--precision float32."
        )


def _save_weights(file: Path, model: Segmenter) -> None:
    from safetensors.torch import save_model

    with atomic_path(file) as temporary:
        save_model(model, str(temporary))


def _truncate_metrics(path: Path, epochs: int) -> None:
    """Drop the records of epochs that will be done again, and a line that a crash cut short."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_text(path, "".join(line for line in lines if line.endswith("\n") and json.loads(line)["epoch"] <= epochs))
