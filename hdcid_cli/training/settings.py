"""What may be chosen about a training run: the losses, how they are minimised, and how the run is kept.

The values are those of a plain `hdcid pretrain`; where the published code uses another, the field says so.
"""

from dataclasses import dataclass, field, fields
from typing import Any

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.modalities import LETTERS
from hdcid_cli.core.registry import listed
from hdcid_cli.core.settings import MOST_SEED, SHOWN, Setting, Settings, setting
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.training.alignments import ALIGNMENTS

PRECISIONS = ("float64", "float32", "tf32", "bf16")

# A default run has at least so many epochs (the published number) and so many steps, so that a few
# hundred clips are seen often enough and 40,000 are not seen too often.
LEAST_EPOCHS = 5
LEAST_STEPS = 480

# The published batch, and a smaller one for few clips: more steps an epoch help more than more negatives.
BATCH = 80
SMALL_BATCH, FEW_CLIPS = 40, 2000

SAVE_MINUTES, SAVE_STEPS = Setting(float, least=0), Setting(int, least=1)


@dataclass(frozen=True)
class ObjectiveSettings(Settings):
    """Terms of the loss.

    A specific encoder lowers the CLUB bound by shrinking its features, too: with the published weight of 1 it leaves
    the next layer nothing to align, with 0.05 that layer learns. Pushed by the bound, the general features give up
    content before the alignment has any to hold on to: on digits 10 % after 60 steps against 50 %.

    Where codes learn by gradient, hardly anything else teaches them what modalities share: without decoders the
    projections of fsq would stay as they were drawn.

    Args:
        beta: weight of the commitment loss.
        club_steps, club_hidden: fitting steps of the CLUB networks a step of the model, and their width.
        deeper: weight of each layer beyond the first.
    """

    align: tuple[str, ...] = setting(
        ("cpc", "cmcm"),
        f"What pulls the modalities together, separated by commas: {', '.join(ALIGNMENTS)}. Letters after one say "
        "which pairs it takes: cpc:av those within, infonce:t all with text.",
    )
    align_on: str = setting(
        "auto",
        "What alignments compare: general features, or the codes that replace them as well; auto: as well where codes "
        "learn by gradient (fsq).",
        choices=("auto", "features", "both"),
        published="features",
    )
    beta: float = setting(0.25, "Weight of the commitment loss.", least=0, line=False)
    mm_ema: bool = setting(
        True, "Codes follow the features of all modalities (MM-EMA), or of the one that chose them alone."
    )
    club: str = setting(
        "sampled",
        "CLUB bound: one other clip each (as published), all pairs (eq. 12), or none.",
        choices=("sampled", "exact", "none"),
    )
    club_gradient: str = setting(
        "specific", "Which encoders the CLUB bound trains.", choices=("specific", "both"), published="both"
    )
    club_weight: float = setting(0.05, "Weight of the CLUB bound.", least=0, published=1)
    club_steps: int = setting(5, "Fitting steps of the CLUB networks a step.", least=0, most=1000, line=False)
    club_hidden: int = setting(128, "Width of the CLUB networks.", least=1, most=1 << 14, line=False)
    cpc_steps: str = setting(
        "all",
        "Score CPC at every step of a clip, or at one drawn at random.",
        choices=("all", "random"),
        published="random",
    )
    cpc_layers: int = setting(2, "Layers of CPC's context LSTM.", least=1, most=64)
    cpc_horizon: int = setting(1, "How many future steps CPC predicts.", least=1, most=1000)
    temperature: float = setting(0.1, "Of the softmax of infonce and seconds.", above=0)
    mask_ratio: float = setting(0.3, "Share of what fcmi masks.", least=0, most=0.99)
    mask: str = setting(
        "steps", "What fcmi masks: whole steps, or channels of all steps.", choices=("steps", "channels")
    )
    jigsaw_parts: int = setting(2, "Blocks of channels that cujp shuffles.", least=2, most=8)
    jigsaw_permutations: int = setting(2, "Orders of the blocks that cujp tells apart.", least=2, most=1000)
    deeper: float = setting(0.3, "Weight of each layer beyond the first.", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for text in self.align:
            name, colon, letters = text.partition(":")
            if name not in ALIGNMENTS:
                raise InputError(f"There is no alignment {SHOWN.repr(name)}: --align takes {listed(ALIGNMENTS)}.")
            if (colon and not letters) or set(letters) - set(LETTERS) or len(set(letters)) < len(letters):
                raise InputError(f"--align {text}: letters after {name} are some of a, v and t, as in {name}:av.")
        if len(set(self.align)) < len(self.align):
            raise InputError(f"--align {','.join(self.align)} names one twice.")


@dataclass(frozen=True)
class TrainSettings(Settings):
    """How the losses are minimised.

    With few clips more epochs, and smaller batches, are needed: None leaves `epochs`, `batch_size` and `warmup` to
    `resolved`, as "auto" does the precision. The trapezoid schedule lets layers that join late learn at the full rate
    too.

    Args:
        milestones: epochs after which `schedule: steps` halves the rate.
        clip: largest norm of the gradient of each module.
        club_lr: of the CLUB networks.
    """

    epochs: int = setting(
        None, "If not given, 5, or as many as make 480 steps.", optional=True, least=1, most=10**6, published=5
    )
    batch_size: int = setting(
        None,
        "Clips a step, over all processes; 80, or 40 where there are fewer than 2000 clips.",
        optional=True,
        least=1,
        most=10**6,
        published=80,
    )
    mix: float = setting(
        0.0,
        "Two clips exchange up to this share of their seconds, pictures and sounds alike, drawn anew every time; 0 for "
        "none.",
        least=0,
        most=0.5,
    )
    lr: float = setting(1e-3, "Learning rate of Adam.", above=0, published=4e-4)
    schedule: str = setting(
        "trapezoid",
        "Of the learning rate: trapezoid goes down to a hundredth over the last 30 %, cosine from the start; steps "
        "halves it after epochs 10, 20 and 30.",
        choices=("trapezoid", "cosine", "constant", "steps"),
        published="steps",
    )
    milestones: tuple[int, ...] = setting((10, 20, 30), "Epochs after which `steps` halves.", least=1, line=False)
    warmup: int = setting(
        None,
        "Layer k joins after (k - 1) times so many epochs; two fifths of the epochs if not given.",
        optional=True,
        least=0,
        most=10**6,
        published=3,
    )
    clip: float = setting(0.5, "Largest norm of a module's gradient.", above=0, line=False)
    club_lr: float = setting(1e-3, "Learning rate of the CLUB networks.", above=0, most=100, line=False)
    codebook_updates: int = setting(1, "Updates of the codebook a step.", least=1, most=6, published=6)
    decay: float = setting(0.99, "Of the codebook's moving averages.", least=0, most=1)
    codebook_start: str = setting(
        "data",
        "Codes on features of the first batch, or uniform in +-1/L.",
        choices=("data", "uniform"),
        published="uniform",
    )
    revival: str = setting(
        "persistent",
        "Codes that nobody uses are replaced, with their moving averages too, without them (so that the next update "
        "loses the new code again), or not at all.",
        choices=("persistent", "published", "none"),
        published="published",
    )
    idle: int = setting(30, "Updates after which an unused code is replaced.", least=1, published=300)
    precision: str = setting(
        "auto",
        "Of the computation; auto: bf16 on GPUs from Ampere on, where it is many times faster, and else float32.",
        choices=("auto", *PRECISIONS),
        published="float64",
    )
    seed: int = setting(0, "Seed of everything random.", least=0, most=MOST_SEED)

    def resolved(self, clips: int, bfloat16: bool = False) -> "TrainSettings":
        """The same with epochs, batch size and warm-up for so many clips, and the precision of a device.

        Args:
            bfloat16: it multiplies in that by itself.
        """
        batch_size = self.batch_size or (SMALL_BATCH if clips < FEW_CLIPS else BATCH)
        steps = steps_per_epoch(clips, batch_size)
        epochs = self.epochs or max(LEAST_EPOCHS, -(-LEAST_STEPS // steps))
        warmup = max(1, epochs * 2 // 5) if self.warmup is None else self.warmup
        found = "bf16" if bfloat16 else "float32"
        precision = found if self.precision == "auto" else self.precision
        return self.but(batch_size=batch_size, epochs=epochs, warmup=warmup, precision=precision)


def steps_per_epoch(clips: int, batch_size: int) -> int:
    """Batches of an epoch: a last one that is not full is left out, unless it is the only one."""
    return max(1, clips // batch_size)


@dataclass(frozen=True)
class RunSettings(Settings):
    """How a run is computed and kept; nothing that changes what is learned.

    Args:
        log_every: steps between two metrics records.
    """

    cache: str = setting(
        "auto",
        "Where to keep the features: in memory, on the device that computes, or in their files alone; auto takes a GPU "
        "if they fill no more than half of what is free there, then memory.",
        choices=("auto", "ram", "device", "none"),
    )
    # Off until a GPU has shown that a played step learns what a computed one does.
    graph: str = setting(
        "off",
        "Record a step as a CUDA graph and play it, so that a GPU does not wait for Python: where that can be (auto), "
        "or else an error (on), or never. Not yet tried on a GPU.",
        choices=("auto", "on", "off"),
    )
    deterministic: bool = setting(
        False, "The same run gives the same bits on a GPU too, by slower kernels; on a CPU it always does."
    )
    tensorboard: bool = setting(False, "Write the metrics for TensorBoard too.")
    wandb: bool = setting(False, "Write the metrics to Weights & Biases too, project hdcid or WANDB_PROJECT.")
    save_every: str = setting("5", "Minutes between two saves, or steps, such as 500steps.", metavar="MINUTES|Nsteps")
    log_every: int = setting(20, "Steps between two records of the metrics.", least=1, line=False)
    validate_every: int = setting(
        100,
        "Steps between two looks at how well validation clips find each other (no labels); 0 for none.",
        least=0,
    )
    keep: int = setting(0, "Older versions of the model to keep.", least=0, most=10**6)
    overwrite: bool = setting(False, "Start again where a checkpoint is.")
    device: str = setting("auto", "auto (a CUDA GPU if there is one), cpu, cuda, cuda:N or mps.")

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.saving

    @property
    def saving(self) -> tuple[float, int | None]:
        """Least seconds between two saves (there is always one at the end), or steps between two instead."""
        text = self.save_every.strip()
        try:
            if text.endswith("steps"):
                return 0.0, SAVE_STEPS.parse(text.removesuffix("steps"))
            return 60 * SAVE_MINUTES.parse(text), None
        except ValueError:
            raise InputError(
                f"--save-every is a number of minutes, or of steps, such as 500steps, not {SHOWN.repr(text)}."
            ) from None


@dataclass(frozen=True)
class PretrainSettings:
    """All that may be chosen about `hdcid pretrain`, but for its files."""

    model: ModelSettings = field(default_factory=ModelSettings)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    run: RunSettings = field(default_factory=RunSettings)

    @classmethod
    def bundles(cls) -> dict[str, type[Settings]]:
        """The parts, by their names."""
        return {part.name: part.default_factory for part in fields(cls)}  # type: ignore[misc]

    @classmethod
    def of(cls, **values: Any) -> "PretrainSettings":
        """From one flat list of settings, by their names; one that does not exist is an InputError."""
        made: dict[str, Settings] = {}
        for name, bundle in cls.bundles().items():
            own = [item.name for item in fields(bundle) if item.name in values]
            made[name] = bundle(**{each: values.pop(each) for each in own})
        if values:
            raise InputError(f"There is no setting {SHOWN.repr(next(iter(values)))} of pretraining.")
        return cls(**made)  # type: ignore[arg-type]
