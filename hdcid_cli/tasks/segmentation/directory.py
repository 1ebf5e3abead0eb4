"""A segmenter on disk:

config.yaml               everything that decides what is learned
state.pt                  weights, optimizer and position, all that a resumed run needs
best-audio.safetensors    weights of the best epoch, judged by the validation split's sounds (`best-text`: prompts)
metrics.jsonl             one record an epoch: loss, and mIoU on the validation split
"""

from dataclasses import dataclass
from pathlib import Path

from hdcid_cli.core.entries import Entries
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.modalities import ORDER
from hdcid_cli.core.run_directory import CONFIG, RunKind, read_config
from hdcid_cli.models.quantizers import READINGS
from hdcid_cli.models.stored import read_model
from hdcid_cli.tasks.segmentation.segmenter import Segmenter, SegmenterSettings

# What a stranger's configuration may ask for: sizes of all kinds, and blocks of the picture encoder.
MOST_SIZE, MOST_BLOCKS = 1 << 14, 200

SEGMENTER = RunKind(
    "segmenter's directory",
    "hdcid-segmenter",
    version=2,
    saved=("best-*.safetensors", "state.pt"),
    noted=("metrics.jsonl",),
)


@dataclass(frozen=True)
class SegmenterDescription:
    """What a segmenter's `config.yaml` says, checked.

    Attributes:
        settings: what the segmenter is made of.
        judges: the modalities by whose validation queries epochs were chosen.
        digest: of the model whose codes are its queries.
        segments: of a query's features, before they become codes.
        read_as: what queries read of the model's codes, one of READINGS.
        query: what else is said of the queries: the channels that they have.
    """

    settings: SegmenterSettings
    judges: tuple[str, ...]
    digest: str
    segments: int
    read_as: str
    query: Entries

    @classmethod
    def read(cls, path: Path) -> "SegmenterDescription":
        """Of a segmenter's directory; what is damaged, or not one of this program, is an InputError."""
        if not (path / CONFIG).exists():
            raise InputError(f"There is no trained segmenter in {path}: make one with `hdcid segment --train a`.")
        file = path / CONFIG
        config = Entries(read_config(path, SEGMENTER), file)
        made, query, judges = config.section("segmenter"), config.section("query"), config.texts("chosen_by")
        layout = made.section("backbone")
        if sum(layout.wholes("depths", (), most=MOST_BLOCKS)) > MOST_BLOCKS:
            raise layout.wrong("depths", f"a list of whole numbers of up to {MOST_BLOCKS} together")
        if not judges or not set(judges) <= set(ORDER):
            raise config.wrong("chosen_by", f"some of {', '.join(ORDER)}")
        size = {name: made.whole(name, least=1, most=MOST_SIZE) for name in ("query", "width", "size")}
        try:
            settings = SegmenterSettings(layout.values, **size)
        except InputError as error:
            raise InputError(f"{file}: {error}") from error
        segments = query.section("made_by").whole("segments", least=1, most=MOST_SIZE)
        read_as = query.text("read", "row")
        if read_as not in READINGS:
            raise query.wrong("read", f"one of {', '.join(READINGS)}")
        return cls(settings, judges, query.text("digest"), segments, read_as, query)


def find_segmenter(where: Path | None, folder: Path) -> Path:
    """The directory itself, or that name in the folder of checkpoints; the newest `segment-*` there if None."""
    if where is not None:
        return where if (where / CONFIG).exists() else folder / where
    found = [file for file in folder.glob("segment-[at]/best-*.safetensors") if file.is_file()]
    if not found:
        raise InputError(
            f"There is no trained segmenter (segment-*/best-*.safetensors) in {folder}/: make one with `hdcid segment "
            "--train a --test a`, or name one with --segmenter."
        )
    return max(found, key=lambda file: file.stat().st_mtime).parent


def load_segmenter(path: Path, modality: str, device) -> Segmenter:
    """The trained model whose epoch was chosen with the validation queries of a modality."""
    settings = SegmenterDescription.read(path).settings
    file = path / f"best-{modality}.safetensors"
    if not file.exists():
        raise InputError(f"{path} holds no finished epoch ({file.name}) yet: run its `hdcid segment` again.")
    return read_model(file, lambda: Segmenter(settings), path / CONFIG).to(device).eval().requires_grad_(False)
