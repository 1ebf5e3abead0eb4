"""What may be chosen about a training run: the losses, and how they are minimised."""

from dataclasses import asdict, dataclass

from hdcid_cli.core.errors import InputError
from hdcid_cli.training.alignments import ALIGNMENTS

PRECISIONS = ("float64", "float32", "tf32", "bf16")


@dataclass(frozen=True)
class ObjectiveSettings:
    """Terms of the loss and their settings.

    Args:
        align: what pulls the modalities together, of `ALIGNMENTS`.
        beta: weight of the commitment loss.
        mm_ema: codes and commitment look at the other modalities too (Xia et al. 2023), or at the own one alone.
        club: "sampled" (published), "exact" (eq. 12) or "none".
        club_weight: weight of the CLUB bound (published: 1). A specific encoder lowers the bound by shrinking its
            features, too; at 1 it leaves the next layer nothing to align, at 0.05 that layer learns.
        club_gradient: "both" lets the bound train general and specific encoders (published), "specific" the
            latter alone. Pushed by both, the general features give up content before the alignment has any
            to hold on to: on digits 10 % after 60 steps against 50 %.
        club_steps, club_hidden: fitting steps of the CLUB networks a step of the model, and their width.
        cpc_steps: "random" scores one step drawn a batch (published), "all" every step.
        cpc_layers, cpc_horizon: layers of the context LSTM, and R.
        deeper: weight of each layer beyond the first.
    """

    align: tuple[str, ...] = ("cpc", "cmcm")
    beta: float = 0.25
    mm_ema: bool = True
    club: str = "sampled"
    club_weight: float = 0.05
    club_gradient: str = "specific"
    club_steps: int = 5
    club_hidden: int = 128
    cpc_steps: str = "all"
    cpc_layers: int = 2
    cpc_horizon: int = 1
    deeper: float = 0.3

    def __post_init__(self):
        object.__setattr__(self, "align", tuple(self.align))
        for name in self.align:
            if name not in ALIGNMENTS:
                raise InputError(f"There is no alignment {name!r}: --align takes {', '.join(ALIGNMENTS)}.")
        if self.club not in ("sampled", "exact", "none"):
            raise InputError(f"--club is sampled, exact or none, not {self.club!r}.")
        if self.club_gradient not in ("specific", "both"):
            raise InputError(f"--club-gradient is specific or both, not {self.club_gradient!r}.")
        if self.cpc_steps not in ("random", "all"):
            raise InputError(f"--cpc-steps is random or all, not {self.cpc_steps!r}.")

    def to_dict(self) -> dict:
        return {**asdict(self), "align": list(self.align)}


@dataclass(frozen=True)
class TrainSettings:
    """How the model is trained.

    Args:
        epochs, batch_size, lr: as usual; the batch is the global one.
        warmup: layer k joins after (k - 1) * warmup epochs.
        schedule: "trapezoid" (constant, the last 30 % down to a hundredth, so that layers which join late learn at the
            full rate too), "cosine" (to a hundredth), "constant", or "steps" (published: halved at `milestones`, in
            epochs).
        clip: largest norm of the gradient of each module.
        club_lr: of the CLUB networks.
        decay: of the codebooks' moving averages.
        codebook_updates: how often a step moves the codes: once, or up to six times as in the published loop.
        codebook_start: "data" (codes on features of the first batches) or "uniform" (published).
        revival: "persistent" gives a replaced code its moving averages too, "published" does not, "none" replaces
            nothing.
        idle: updates after which an unused code is replaced.
        precision: float64, float32, tf32 or bf16 (the last two on a GPU).
    """

    epochs: int = 5
    batch_size: int = 80
    lr: float = 4e-4
    warmup: int = 3
    schedule: str = "constant"
    milestones: tuple[int, ...] = (10, 20, 30)
    clip: float = 0.5
    club_lr: float = 1e-3
    decay: float = 0.99
    codebook_updates: int = 1
    codebook_start: str = "data"
    revival: str = "persistent"
    idle: int = 300
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "milestones", tuple(self.milestones))
        if self.epochs < 1 or self.batch_size < 1:
            raise InputError("--epochs and --batch-size should be 1 or more.")
        for name, value, choices in (
            ("schedule", self.schedule, ("trapezoid", "cosine", "constant", "steps")),
            ("codebook-start", self.codebook_start, ("data", "uniform")),
            ("revival", self.revival, ("persistent", "published", "none")),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in choices:
                raise InputError(f"--{name} is {', '.join(choices)}, not {value!r}.")

    def to_dict(self) -> dict:
        return {**asdict(self), "milestones": list(self.milestones)}
