"""From the flat options of `hdcid pretrain` (and the recipes that name them) to a `Run`."""

from pathlib import Path

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import feature_paths, open_features
from hdcid_cli.core.files import safe_name
from hdcid_cli.core.modalities import ORDER, letter
from hdcid_cli.core.progress import say
from hdcid_cli.core.splits import training_clips
from hdcid_cli.training.data import epoch_batches
from hdcid_cli.training.pretrain import Run

MODEL = ("layers", "dim", "codebook", "quantizer", "dropout", "spatial_attention", "standardize", "padding")
OBJECTIVE = ("mm_ema", "club", "club_weight", "club_gradient", "cpc_steps", "cpc_layers", "cpc_horizon")
TRAIN = ("lr", "schedule", "decay", "codebook_updates", "codebook_start", "revival", "idle", "precision", "seed")

# A default run has at least so many epochs (the published number) and so many steps, so that a few
# hundred clips are seen often enough and 40,000 are not seen too often.
LEAST_EPOCHS = 5
LEAST_STEPS = 480

# The published batch, and a smaller one for few clips: more steps an epoch help more than more negatives.
BATCH = 80
SMALL_BATCH, FEW_CLIPS = 40, 2000


def run_from_options(values: dict) -> Run:
    """Fill in what was not given: modalities, epochs, warm-up, the split and the output's name."""
    names = values["modalities"] or present_modalities(values["features"])
    align = tuple(part.strip() for part in values["align"].split(",") if part.strip())
    with open_features(values["features"], names[0]) as first:
        clips = training_clips(values["split"], values["data"], first.ids, values["leave_out"])
        count = len(first) if clips is None else sum(name in clips for name in first.ids)
    batch_size = values["batch_size"] or (SMALL_BATCH if count < FEW_CLIPS else BATCH)
    steps = len(epoch_batches(max(1, count), batch_size, 0, 0))
    epochs = values["epochs"] or max(LEAST_EPOCHS, -(-LEAST_STEPS // steps))
    warmup = values["warmup"] if values["warmup"] is not None else max(1, epochs * 2 // 5)
    if values["layers"] > 1 and warmup * (values["layers"] - 1) >= epochs:
        say(
            f"With --warmup {warmup} and --epochs {epochs} not every layer gets to learn; "
            f"{warmup * (values['layers'] - 1) + 1} epochs would do."
        )
    return Run(
        modalities=names,
        features=values["features"],
        output=values["output"] or values["checkpoints"] / run_name(values, names, align),
        model={"shared_transformer": "mst" in align, **{key: values[key] for key in MODEL}},
        objective={"align": align, **{key: values[key] for key in OBJECTIVE}},
        train={"epochs": epochs, "warmup": warmup, "batch_size": batch_size, **{key: values[key] for key in TRAIN}},
        clips=clips,
        device=values["device"],
        cache=values["cache"],
        compile=values["compile_"],
        tensorboard=values["tensorboard"],
        **values["save_every"],
        keep=values["keep"],
        overwrite=values["overwrite"],
    )


def present_modalities(folder: Path) -> tuple[str, ...]:
    """The modalities that have a feature file in the folder; none is an InputError."""
    found = tuple(name for name in ORDER if all(path.exists() for path in feature_paths(folder, name)))
    if not found:
        raise InputError(f"There are no feature files in {folder}/: make them with `hdcid extract`.")
    return found


def run_name(values: dict, names: tuple[str, ...], align: tuple[str, ...]) -> str:
    """`hdcid-avt`, `dcid-av-rvq4-seed1`: the method and what differs from its defaults."""
    layers = values["layers"]
    parts = [{0: "flat", 1: "dcid", 2: "hdcid"}.get(layers, f"hdcid{layers}"), "".join(letter(name) for name in names)]
    if align != ("cpc", "cmcm"):
        parts.append("+".join(align) or "alone")
    if values["quantizer"] != "vq":
        parts.append(values["quantizer"].replace(":", "").replace(",", "."))
    if values["codebook"] != 400:
        parts.append(f"L{values['codebook']}")
    if values["leave_out"]:
        parts.append(f"without-{safe_name(values['leave_out'].partition('=')[2])}")
    if values["seed"]:
        parts.append(f"seed{values['seed']}")
    return "-".join(parts)
