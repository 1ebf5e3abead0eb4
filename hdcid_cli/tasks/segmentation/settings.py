"""What may be chosen about a segmenter's training."""

from dataclasses import dataclass

from hdcid_cli.core.settings import MOST_SEED, Settings, setting


@dataclass(frozen=True)
class SegmenterTrainSettings(Settings):
    """How a segmenter is trained; the defaults are AVSBench's.

    With `schedule: cosine` the rate rises shortly and then goes down to zero in the last step, so that the last epochs
    settle; longer training is another training then.
    """

    epochs: int = setting(15, "Passes over the training clips.", least=1, most=10**6)
    batch_size: int = setting(4, "Clips a step.", least=1, most=10**6)
    lr: float = setting(1e-4, "Learning rate of Adam.", above=0)
    freeze_backbone: bool = setting(False, "Leave the picture encoder as it is.")
    augment: bool = setting(
        False, "Mirror and crop the training pictures at random (not published); small data sets need it."
    )
    schedule: str = setting(
        "constant",
        "Learning rate over the epochs; cosine goes down to zero and suits training from nothing.",
        choices=("constant", "cosine"),
    )
    precision: str = setting("float32", "bf16 is mixed precision, for a GPU.", choices=("float32", "bf16"))
    seed: int = setting(0, "Seed of everything random.", least=0, most=MOST_SEED)
