"""What a run is to do where nobody said it: which modalities, which clips, and what it is called."""

from dataclasses import replace
from pathlib import Path

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import feature_paths, open_features
from hdcid_cli.core.files import safe_name
from hdcid_cli.core.modalities import ORDER, letter
from hdcid_cli.core.splits import NOTHING, HeldOut, training_clips, validation_clips
from hdcid_cli.models.quantizers import completed
from hdcid_cli.training.alignments import asked_of_model
from hdcid_cli.training.pretrain import Run
from hdcid_cli.training.settings import PretrainSettings

# What its makers combine a model with, in the place of our defaults.
USUAL: dict[str, dict] = {"fcid": {"align": ("cpc:av", "cmcm", "infonce:t"), "deeper": 1.0, "warmup": 0}}


def plan(
    features: Path,
    settings: PretrainSettings | None = None,
    output: Path | None = None,
    modalities: tuple[str, ...] | None = None,
    clips: frozenset[str] | None = None,
    checkpoints: Path = Path("checkpoints"),
    leave_out: str | None = None,
    watched: tuple[str, ...] = (),
) -> Run:
    """A run with everything filled in that was not given.

    Args:
        features: folder of the feature files.
        output: checkpoint directory; by default one in `checkpoints` that is named after the method.
        modalities: by default those that have a feature file.
        clips: names to learn from; None for all.
        leave_out: groups that `clips` leaves out, which the name says.
        watched: names of clips to look at while it learns, and not to learn from.
    """
    settings, names = usual(settings or PretrainSettings()), modalities or present_modalities(features)
    model, asked = settings.model, asked_of_model(settings.objective.align)
    settings = replace(settings, model=model.but(quantizer=completed(model.quantizer, model.codebook), **asked))
    return Run(names, features, output or checkpoints / run_name(names, settings, leave_out), settings, clips, watched)


def usual(settings: PretrainSettings) -> PretrainSettings:
    """The settings with what is usual for the model, wherever they are still our defaults."""
    changed = {}
    for part in ("objective", "train"):
        bundle = getattr(settings, part)
        known = {name: value for name, value in USUAL.get(settings.model.kind, {}).items() if hasattr(bundle, name)}
        kept = {name for name in known if getattr(bundle, name) != getattr(type(bundle)(), name)}
        changed[part] = bundle.but(**{name: value for name, value in known.items() if name not in kept})
    return replace(settings, **changed)


def clips_to_learn_from(
    features: Path,
    modalities: tuple[str, ...] | None,
    split: Path | None,
    data: Path,
    leave_out: str | None = None,
    more: HeldOut = NOTHING,
) -> tuple[frozenset[str] | None, tuple[str, ...]]:
    """The clips that nobody tests on or chooses by, None for all, and those to look at, as `core/splits.py` finds them.

    Args:
        more: what other files than tables of splits hold out.
    """
    name = (modalities or present_modalities(features))[0]
    with open_features(features, name) as first:
        clips = training_clips(split, data, first.ids, leave_out, more)
        return clips, tuple(validation_clips(split, data, first.ids, leave_out, more))


def present_modalities(folder: Path) -> tuple[str, ...]:
    """The modalities that have a feature file in the folder; none is an InputError."""
    found = tuple(name for name in ORDER if all(path.exists() for path in feature_paths(folder, name)))
    if not found:
        raise InputError(f"There are no feature files in {folder}/: make them with `hdcid extract`.")
    return found


def run_name(names: tuple[str, ...], settings: PretrainSettings, leave_out: str | None = None) -> str:
    """`hdcid-avt`, `dcid-av-rvq4-seed1`: the method and what differs from its defaults."""
    model, align, usual = settings.model, settings.objective.align, PretrainSettings()
    parts = [model.method, "".join(letter(name) for name in names)]
    if align != usual.objective.align:
        parts.append("+".join(align).replace(":", "") or "alone")
    if model.quantizer != usual.model.quantizer:
        parts.append(model.quantizer.replace(":", "").replace(",", "."))
    if model.codebook != usual.model.codebook:
        parts.append(f"L{model.codebook}")
    if leave_out:
        parts.append(f"without-{safe_name(leave_out.partition('=')[2])}")
    if settings.train.seed:
        parts.append(f"seed{settings.train.seed}")
    return "-".join(parts)
