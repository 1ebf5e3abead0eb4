"""TOC: choosing the codebook channels that tell codes apart, without training (paper, section 4.1, eq. 7-11)."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hdcid_cli.core.entries import Entries, read_json
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import write_text
from hdcid_cli.core.records import TOC_SCHEMA

CRITERIA = ("both", "similarity", "variance")
LABEL_LIMIT = 100  # characters


def channel_similarity(codebook: np.ndarray, normalise: bool = True) -> np.ndarray:
    """S_c of eq. 9: mean over pairs i != j of e_ic e_jc, divided by L^2; [L, D] -> [D].

    In closed form ((sum_i e_ic)^2 - sum_i e_ic^2) / L^2, O(L D) instead of O(L^2 D).
    """
    codebook = _rows(codebook, normalise)
    return (codebook.sum(axis=0) ** 2 - (codebook**2).sum(axis=0)) / len(codebook) ** 2


def channel_variance(codebook: np.ndarray, normalise: bool = True, unbiased: bool = False) -> np.ndarray:
    """V_c of eq. 10: variance over codes; [L, D] -> [D]."""
    return _rows(codebook, normalise).var(axis=0, ddof=int(unbiased))


def channel_cost(
    codebook: np.ndarray, criterion: str = "both", lam: float = 0.7, normalise: bool = True, released: bool = False
) -> np.ndarray:
    """J_c = lam S_c - (1 - lam) V_c of eq. 11; small is good; [L, D] -> [D].

    Args:
        criterion: "both", "similarity" (lam = 1) or "variance" (lam = 0), the rows of Table 5.
        normalise: unit rows first, as the paper says (the released code does not).
        released: divide S by L (L - 1) and use the unbiased variance, as the released code does.
    """
    if criterion not in CRITERIA:
        raise InputError(f"The criterion of TOC is {', '.join(CRITERIA)}, not {criterion!r}.")
    lam = {"both": lam, "similarity": 1.0, "variance": 0.0}[criterion]
    similarity = channel_similarity(codebook, normalise)
    if released:
        similarity = similarity * len(codebook) / (len(codebook) - 1)
    return lam * similarity - (1 - lam) * channel_variance(codebook, normalise, unbiased=released)


def select_channels(
    codebook: np.ndarray,
    keep: int,
    criterion: str = "both",
    lam: float = 0.7,
    mix: tuple[int, int] = (1, 0),
    normalise: bool = True,
    released: bool = False,
) -> np.ndarray:
    """The `keep` channels of smallest cost, in ascending order of number.

    Args:
        codebook: [L, D].
        keep: Q, between 1 and D.
        mix: the released code's max:min, shares of channels from the best and from the worst
            end (1:0, 3:1 or 1:1).
    """
    dim = codebook.shape[1]
    if not 1 <= keep <= dim:
        raise InputError(f"TOC can keep between 1 and {dim} channels, not {keep}.")
    order = np.argsort(channel_cost(codebook, criterion, lam, normalise, released), kind="stable")
    worst = keep * mix[1] // (mix[0] + mix[1])
    chosen = np.concatenate([order[: keep - worst], order[dim - worst :]])
    return np.sort(chosen)


def code_similarities(codebook: np.ndarray, channels: np.ndarray | None = None) -> np.ndarray:
    """Cosine similarity of every pair of codes, on the given channels: [L, D] -> [L, L] (Fig. 2)."""
    rows = _rows(codebook if channels is None else codebook[:, channels], True)
    return rows @ rows.T


def _rows(codebook: np.ndarray, normalise: bool) -> np.ndarray:
    codebook = np.asarray(codebook, dtype=np.float64)
    if codebook.ndim != 2 or len(codebook) < 2:
        raise InputError(f"TOC needs a codebook [L, D] of two codes or more, not {codebook.shape}.")
    if not normalise:
        return codebook
    return codebook / np.maximum(np.linalg.norm(codebook, axis=1, keepdims=True), 1e-12)


# Channels kept for each task, as published: (V->A, A->V), each a number and its mix max:min; None where nobody says.
Choice = tuple[int, tuple[int, int]]
PAPER: dict[tuple[str, str], tuple[Choice | None, Choice | None]] = {
    ("dcid", "ave"): ((224, (1, 1)), (224, (1, 1))),
    ("dcid", "avvp"): ((128, (3, 1)), (128, (3, 1))),
    ("dcid", "ave2avvp"): ((224, (1, 0)), (196, (1, 0))),
    ("dcid", "ucf2vgg"): ((128, (1, 0)), (224, (1, 0))),
    ("hdcid", "ave"): ((128, (1, 0)), (196, (1, 0))),
    ("hdcid", "avvp"): ((224, (1, 0)), (128, (1, 0))),
    ("hdcid", "ave2avvp"): ((196, (1, 1)), (224, (3, 1))),
    ("hdcid", "ucf2vgg"): ((196, (1, 0)), (224, (1, 1))),
    ("fcid", "ave"): (None, (256, (1, 0))),
    ("fcid", "avvp"): (None, (196, (1, 0))),
    ("fcid", "ave2avvp"): ((128, (1, 0)), None),
    ("fcid", "ucf2vgg"): (None, (168, (1, 0))),
}
# How else than the paper of TOC says they are chosen: FCID's by its code.
CHOSEN = {"fcid": {"normalise": False, "released": True}}


@dataclass(frozen=True)
class Selection:
    """The channels that a task reads, and how they were chosen.

    Attributes:
        channels: one array of numbers a layer, ascending.
        label: how a record names the choice, such as "128" or "128 (3:1)".
        criterion, lam, mix, normalise, released: as `select_channels` takes them.
    """

    channels: list[np.ndarray]
    label: str
    criterion: str = "both"
    lam: float = 0.7
    mix: tuple[int, int] = (1, 0)
    normalise: bool = True
    released: bool = False

    def save(self, file: Path) -> None:
        """Write it as JSON (`toc.json` of a checkpoint directory)."""
        stored = {
            "label": self.label,
            "criterion": self.criterion,
            "lam": self.lam,
            "mix": self.mix,
            "normalise": self.normalise,
            "released": self.released,
            "channels": [channels.tolist() for channels in self.channels],
        }
        write_text(file, json.dumps(stored) + "\n")

    @classmethod
    def load(cls, file: Path, layers: int, dim: int) -> "Selection":
        """What `save` wrote for a model of so many layers and channels; anything else is an InputError."""
        stored = read_json(file)
        found = cls(
            [],
            stored.text("label"),
            stored.text("criterion", "both"),
            stored.number("lam", 0.7, 0, 1),
            stored.wholes("mix", (1, 0)),
            stored.flag("normalise", True),
            stored.flag("released", False),
        )
        if found.criterion not in CRITERIA:
            raise stored.wrong("criterion", f"one of {', '.join(CRITERIA)}")
        if not 1 <= len(found.label) <= LABEL_LIMIT or not found.label.isprintable():
            raise stored.wrong("label", f"a text of 1 to {LABEL_LIMIT} characters that can be printed")
        if len(found.mix) != 2 or not any(found.mix):
            raise stored.wrong("mix", "two whole numbers, not both 0")
        found.channels.extend(read_channels(stored, layers, dim))
        return found


def read_channels(stored: Entries, layers: int, dim: int) -> list[np.ndarray]:
    """The lists of `channels` that a file holds for a model of so many layers and channels."""
    lists = stored.values.get("channels")
    if not isinstance(lists, list) or len(lists) != layers:
        raise stored.wrong("channels", f"{layers} lists, one for each layer of the model")
    found = []
    for number, channels in enumerate(lists, 1):
        chosen = Entries({f"channels of layer {number}": channels}, stored.source).wholes(
            f"channels of layer {number}", least=0, most=dim - 1
        )
        if not chosen or any(one >= other for one, other in zip(chosen, chosen[1:])):
            raise InputError(f"{stored.source}: the channels of layer {number} should be some, each once, ascending.")
        found.append(np.array(chosen))
    return found


def select(codebooks: list[np.ndarray], keep: int, **settings) -> Selection:
    """One selection a layer, as `select_channels` makes it."""
    mix = settings.get("mix", (1, 0))
    label = str(keep) if tuple(mix) == (1, 0) else f"{keep} ({mix[0]}:{mix[1]})"
    return Selection([select_channels(codebook, keep, **settings) for codebook in codebooks], label, **settings)


def resolve_toc(text: str, checkpoint, task: str, train: str) -> Selection | None:
    """What `--toc` means for one checkpoint, task and direction.

    Args:
        text: "none"; "stored" (what `hdcid toc` left in the checkpoint, none if it left nothing); a number
            of channels; two numbers "V->A/A->V"; or "paper", the published choice for the task.
        checkpoint: with `.toc` and `.codebooks`.
        train: the modality learned on; of two numbers video takes the first, any other the second.
    """
    text = text.strip().lower()
    if text == "none":
        return None
    if text == "stored":
        return checkpoint.toc
    direction = 0 if train == "video" else 1
    if text == "paper":
        kind = checkpoint.settings.kind
        method = ("dcid" if len(checkpoint.codebooks) == 1 else "hdcid") if kind == "hdcid" else kind
        choice = PAPER.get((method, task), (None, None))[direction]
        if choice is None:
            raise InputError(
                f"The paper names no TOC channels for {task} learned on {train} ({method}): give a number, such as "
                "--toc 128."
            )
        return select(checkpoint.codebooks, choice[0], mix=choice[1], **CHOSEN.get(method, {}))
    try:
        numbers = [int(part) for part in text.split("/")]
    except ValueError:
        raise InputError(
            f"--toc is none, stored, paper, a number of channels or two (224/196), not {text!r}."
        ) from None
    if len(numbers) > 2:
        raise InputError(f"--toc takes one number of channels or two, not {len(numbers)}.")
    return select(checkpoint.codebooks, numbers[min(direction, len(numbers) - 1)])


def apply_toc(quantized: np.ndarray, selection: Selection | None) -> np.ndarray:
    """Quantized features [N, T, K, D] -> [N, T, C]: the selected channels of every layer, side by side."""
    if selection is None:
        return quantized.reshape(*quantized.shape[:2], quantized.shape[2] * quantized.shape[3])
    return np.concatenate(
        [quantized[:, :, layer, channels] for layer, channels in enumerate(selection.channels)], axis=-1
    )


def parse_mix(text: str) -> tuple[int, int]:
    """`3:1` -> (3, 1): shares of channels from the best and the worst end."""
    try:
        best, worst = (int(part) for part in text.split(":"))
        if best < 0 or worst < 0 or best + worst == 0:
            raise ValueError
    except ValueError:
        raise InputError(f"--mix is two whole numbers such as 1:0, 3:1 or 1:1, not {text!r}.") from None
    return best, worst


def describe(checkpoint, selection: Selection) -> list[dict]:
    """One row a layer: channels kept, and the mean cosine similarity of two codes before and after."""
    rows = []
    for layer, (codebook, channels) in enumerate(zip(checkpoint.codebooks, selection.channels, strict=True), 1):
        rows.append(
            {
                "schema": TOC_SCHEMA,
                "layer": layer,
                "kept": len(channels),
                "of": codebook.shape[1],
                "similarity before": round(mean_similarity(codebook), 6),
                "similarity after": round(mean_similarity(codebook, channels), 6),
                "checkpoint": checkpoint.name,
            }
        )
    return rows


def mean_similarity(codebook: np.ndarray, channels: np.ndarray | None = None) -> float:
    """Mean cosine similarity of two different codes."""
    similarities = code_similarities(codebook, channels)
    codes = len(similarities)
    return float((similarities.sum() - np.trace(similarities)) / (codes * (codes - 1)))
