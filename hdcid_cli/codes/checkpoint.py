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
from functools import cached_property
from pathlib import Path

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import file_digest
from hdcid_cli.core.modalities import ORDER, letter
from hdcid_cli.core.run_directory import RunDirectory, RunKind, read_config

CHECKPOINT = RunKind(
    "checkpoint directory",
    "hdcid-checkpoint",
    version=2,  # 2: weights of 3 x 3 lie channels last
    saved=("model.safetensors", "steps/*.safetensors", "state.pt"),
    noted=("clips.txt", "metrics.jsonl", "tensorboard/events.out.tfevents.*"),
    derived=("toc.json", "cache/*.npy"),
    latest=True,
)


class Checkpoint:
    """A trained model, read-only.

    Attributes:
        path: its directory.
        config: content of `config.yaml`, with the sections `model`, `objective`, `train` and `features`.
    """

    def __init__(self, path: Path, config: dict, device="cpu"):
        self.path, self.config, self._device = path, config, device

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the model's file."""
        return file_digest(self.path / "model.safetensors")

    @cached_property
    def model(self):
        """The model in eval mode on the device."""
        from safetensors import SafetensorError
        from safetensors.torch import load_model

        from hdcid_cli.core.device import resolve_device
        from hdcid_cli.models.hdcid import HDCID
        from hdcid_cli.models.settings import ModelSettings

        model = HDCID(ModelSettings.from_dict(self.config["model"], f"{self.path}/config.yaml, model"))
        if self.config.get("train", {}).get("precision") == "float64":
            model.double()
        try:
            load_model(model, self.path / "model.safetensors")
        except (SafetensorError, RuntimeError, OSError) as error:
            raise InputError(
                f"{self.path}: model.safetensors does not fit config.yaml ({str(error).splitlines()[0]})."
            ) from error
        return model.to(resolve_device(self._device)).eval().requires_grad_(False)

    @cached_property
    def codebooks(self) -> list:
        """What tasks read for each code, [L, width] a layer (of the first stage for rvq, the implied one for fsq)."""
        return [layer.quantizer.table.detach().double().cpu().numpy() for layer in self.model.layers]

    @property
    def toc(self) -> dict | None:
        """What `hdcid toc` stored: {"channels": [[...], ...], "label": "128", ...}, or None."""
        path = self.path / "toc.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    @property
    def clips(self) -> set[str]:
        """Names of the clips that the model learned from; empty for an imported checkpoint."""
        path = self.path / "clips.txt"
        return set(path.read_text(encoding="utf-8").splitlines()) if path.exists() else set()

    @property
    def method(self) -> str:
        """What aligned the modalities, as records name it: "cpc,cmcm"."""
        return ",".join(self.config.get("objective", {}).get("align", []))

    def describe(self) -> dict:
        """The fields of a record that say which model a result is of."""
        model = self.config["model"]
        return {
            "method": self.method,
            "layers": model["layers"],
            "quantizer": model["quantizer"],
            "codebook": model["codebook"],
            "modalities": "".join(letter(name) for name in ORDER if name in model["inputs"]),
            "pretrain_clips": self.config.get("clips"),
            "checkpoint": self.digest,
            "checkpoint_name": self.name,
            "pretrain_seed": self.config.get("train", {}).get("seed"),
        }


def find_checkpoint(where: Path | str | None, folder: Path | str) -> Path:
    """The directory of a checkpoint: `where`, a name in `folder`, or `folder/latest`; missing -> InputError."""
    folder = Path(folder)
    candidates = [folder / "latest"] if where is None else [Path(where), folder / where]
    for path in candidates:
        if (path / "config.yaml").exists():
            return path.resolve()
    if where is None:
        raise InputError(
            f"There is no checkpoint in {folder}/: make one with `hdcid pretrain`, or name one with --checkpoint."
        )
    raise InputError(f"{where} is not a checkpoint directory (it has no config.yaml): make one with `hdcid pretrain`.")


def open_checkpoint(
    where: Path | str | None = None, checkpoints: Path | str = "checkpoints", device="auto"
) -> Checkpoint:
    """Open a checkpoint by path, by name, or the latest; anything else is an InputError."""
    path = find_checkpoint(where, checkpoints)
    config = read_checkpoint_config(path)
    if not (path / "model.safetensors").exists():
        raise InputError(
            f"{path} holds no model yet: its training was stopped before the first save; run the same `hdcid "
            "pretrain` again."
        )
    return Checkpoint(path, config, device)


def read_checkpoint_config(path: Path) -> dict:
    """`config.yaml` of a checkpoint directory, checked."""
    config = read_config(path, CHECKPOINT)
    if not isinstance(config.get("model"), dict):
        raise InputError(f"{path / 'config.yaml'} has no section `model`.")
    return config


def write_checkpoint(path: Path, config: dict, model) -> None:
    """Make a checkpoint directory of a model that was not trained here, or replace the one at the path; `latest` is it.

    Args:
        config: sections `model`, `objective`, `train` and `features` of its `config.yaml`.
    """
    with RunDirectory(path, CHECKPOINT, config, overwrite=True) as directory:
        directory.start()
        directory.save({"model.safetensors": lambda file: write_model(file, model)})


def write_model(file: Path, model) -> None:
    """A model's weights, as `model.safetensors` has them."""
    from safetensors.torch import save_model

    save_model(model, str(file))


def write_state(file: Path, state: dict) -> None:
    """A training state, as `state.pt` has it."""
    import torch

    torch.save(state, file)


def load_state(path: Path, device="cpu") -> dict | None:
    """The training state, without unpickling anything but tensors and plain values; None if there is none."""
    import pickle

    import torch

    file = path / "state.pt"
    if not file.exists():
        return None
    try:
        return torch.load(file, map_location=device, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({str(error).splitlines()[0]}): remove it to start again.") from error
