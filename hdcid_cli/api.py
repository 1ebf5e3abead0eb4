"""hdcid from Python: what the commands do, as functions with the commands' words.

    import hdcid_cli as hdcid

    hdcid.write_features("features/audio.h5", ids, audio, "audio")
    model = hdcid.pretrain("features", "checkpoints/mine", layers=2, epochs=5)
    codes = hdcid.encode(model, audio, "audio").indices
    records = hdcid.cmg("classify", model, train="video", test="audio")
    print(hdcid.table(records))

`import hdcid_cli` itself is light: torch and the rest are imported with the first of these names. Everything raises
`InputError` for what its user can mend.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hdcid_cli.backbones import Options
from hdcid_cli.backbones.extraction import Extracted, ExtractionSettings
from hdcid_cli.backbones.extraction import extract as _extract
from hdcid_cli.codes.checkpoint import Checkpoint, open_checkpoint
from hdcid_cli.codes.encode import Codes
from hdcid_cli.codes.encode import encode as _encode
from hdcid_cli.codes.toc import select_channels
from hdcid_cli.core.distributed import main_process_talks
from hdcid_cli.core.errors import HdcidError, InputError
from hdcid_cli.core.features import FeatureFile, FeatureWriter, open_features
from hdcid_cli.core.features.rows import finite
from hdcid_cli.core.files import open_regular
from hdcid_cli.core.json_lines import objects
from hdcid_cli.core.modalities import modalities as all_names
from hdcid_cli.core.modalities import modality as full_name
from hdcid_cli.core.precision import matmul_precision
from hdcid_cli.core.progress import counted, makes_no_difference, warn
from hdcid_cli.core.splits import require_data
from hdcid_cli.media.wave import Wave
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.report.formats import RENDERERS
from hdcid_cli.report.layouts import lay_out
from hdcid_cli.report.pivot import choose_metrics, pivots
from hdcid_cli.report.results import results_of
from hdcid_cli.tasks.cmg.protocol import ProbeSettings
from hdcid_cli.tasks.cmg.reading import NO_CODES, open_sides, read_codes, read_features
from hdcid_cli.tasks.cmg.run import read_task, run_task
from hdcid_cli.tasks.held_out import held_out_by_tasks
from hdcid_cli.training.plan import clips_to_learn_from, plan, present_modalities
from hdcid_cli.training.pretrain import pretrain as _pretrain
from hdcid_cli.training.recipes import recipe_settings
from hdcid_cli.training.settings import ObjectiveSettings, PretrainSettings, RunSettings, TrainSettings

__all__ = [
    "Checkpoint",
    "Codes",
    "Extracted",
    "FeatureFile",
    "HdcidError",
    "InputError",
    "ModelSettings",
    "ObjectiveSettings",
    "PretrainSettings",
    "ProbeSettings",
    "RunSettings",
    "TrainSettings",
    "Wave",
    "cmg",
    "encode",
    "extract",
    "open_checkpoint",
    "open_features",
    "pretrain",
    "read_records",
    "select_channels",
    "table",
    "write_features",
]

Place = str | Path


def write_features(
    path: Place,
    ids: Sequence[str],
    features: np.ndarray,
    modality: str,
    length: Sequence[int] | None = None,
    backbone: str = "own",
    segment_seconds: float = 1.0,
) -> FeatureFile:
    """A feature file of arrays that somebody else computed, opened; one that is there is replaced.

    Args:
        path: `features/audio.h5`.
        ids: names of N clips.
        features: [N, T, C] or [N, T, H, W, C]; float16 stays so, anything else becomes float32.
        modality: v, a, t or its full name.
        length: valid segments of each clip, 1 to T; all of them if not given.
        backbone: what made them, for records.
    """
    features, name = np.asarray(features), full_name(modality)
    with np.errstate(over="ignore"):  # what is too large is told below
        features = features if features.dtype == np.float16 else features.astype(np.float32)
    lengths = np.full(len(features), features.shape[1]) if length is None else np.asarray(length)
    if features.ndim not in (3, 5) or not len(ids) == len(features) == len(lengths):
        raise InputError(
            f"Features should be [N, T, C] or [N, T, H, W, C] with N names and lengths, not {features.shape} with "
            f"{counted(len(ids), 'name')}."
        )
    if not len(ids) or not all(isinstance(clip, str) for clip in ids) or len(set(ids)) < len(ids):
        raise InputError("A feature file holds one clip or more, each once, by a name that is a text.")
    if wrong := [clip for clip, steps in zip(ids, lengths) if not 1 <= steps <= features.shape[1]]:
        raise InputError(f"Clip {wrong[0]!r} should have from 1 to {features.shape[1]} valid segments.")
    if wrong := [clip for clip, row in zip(ids, features) if not finite(row)]:
        raise InputError(f"The features of clip {wrong[0]!r} hold what is no finite number in {features.dtype}.")
    attributes = {"modality": name, "backbone": backbone, "weights": "none", "segment_seconds": segment_seconds}
    with FeatureWriter(path, ids, features.shape[1:], attributes, features.dtype, overwrite=True) as writer:
        for clip, row, steps in zip(ids, features, lengths, strict=True):
            writer.write(clip, row, int(steps))
        writer.finish()
    return FeatureFile([Path(path)])


def extract(
    paths: Place | Iterable[Place] | Mapping[str, Wave],
    modality: str,
    output: Place | None = None,
    backbone: str | None = None,
    **options: Any,
) -> Extracted:
    """Features of media or texts to a feature file, as `hdcid extract` makes them.

    Args:
        paths: media files, folders, globs, or lists of them; or sounds in memory, {"clip": Wave(samples, 44100)}.
        output: `features/MODALITY.h5` if not given.
        backbone: the papers' one if not given.
        options: fields of `backbones.Options` and of `ExtractionSettings`, such as `seconds=10, workers=4`.
    """
    _refuse_unknown(options, "extraction", Options, ExtractionSettings)
    name = full_name(modality)
    given: Mapping[str, Wave] | list[str]
    if isinstance(paths, Mapping):
        given = paths
    else:
        given = [str(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    target = Path(output or f"features/{name}.h5")
    settings = {each.name: options.pop(each.name) for each in fields(ExtractionSettings) if each.name in options}
    return _extract(given, name, target, backbone, Options(**options), ExtractionSettings(**settings))


@main_process_talks()
def pretrain(
    features: Place,
    output: Place | None = None,
    modalities: Sequence[str] | str | None = None,
    clips: Iterable[str] | None = None,
    validation: Iterable[str] = (),
    data: Place | None = None,
    leave_out: str | None = None,
    **settings: Any,
) -> Checkpoint:
    """Train a model on a folder of feature files, or go on where that stopped, and open it.

    Args:
        output: checkpoint directory; one in `checkpoints/` that is named after the method if not given.
        modalities: such as "av"; those that have a feature file if not given.
        clips: names to learn from; all if not given.
        validation: names to look at while it learns, and not to learn from: how well they find each other.
        data: folder of annotations, as `--data`: what its tables are to test or to choose by is not learned from, and
            what they are to choose by is `validation`. Nothing is asked of any folder if not given.
        leave_out: groups of clips to leave out, such as "speaker=anna" of a table in `data` ("data" if not given).
        settings: of `PretrainSettings`, by their names: `layers=2, align=("cpc", "cmcm"), epochs=5`; and `recipe`, the
            name of some (`hdcid recipe ls`) or a file of them: those that are given count more.
    """
    recipe = settings.pop("recipe", None)
    said = recipe_settings(recipe) if recipe else {}
    of_recipe = said.pop("modalities", None)
    wanted = of_recipe if modalities is None else modalities
    names = None if wanted is None else all_names(wanted if isinstance(wanted, str) else ",".join(wanted))
    asked = PretrainSettings.of(**{**said, **settings})
    chosen, watched = None if clips is None else frozenset(clips), tuple(validation)
    if data is not None or leave_out is not None:
        place = Path("data" if data is None else data)
        if data is not None:
            require_data(place)
        held = held_out_by_tasks(place)
        left, choosing = clips_to_learn_from(Path(features), names, None, place, leave_out, held)
        chosen, watched = _in_both(chosen, left), watched or choosing
    if watched:
        with open_features(features, (names or present_modalities(Path(features)))[0]) as first:
            chosen = (frozenset(first.ids) if chosen is None else chosen) - frozenset(watched)
    given = None if output is None else Path(output)
    run = plan(Path(features), asked, given, names, chosen, leave_out=leave_out, watched=watched)
    return open_checkpoint(_pretrain(run), device=asked.run.device)


def _in_both(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    """Clips that are in two selections, of which None is all."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def encode(checkpoint: Checkpoint, features: FeatureFile | Place | np.ndarray, modality: str | None = None) -> Codes:
    """Codes of every clip.

    Args:
        features: a feature file, or an array [N, T, ...] of the modality; its clips are called "0", "1", ...

    Returns:
        `indices` [N, T, K, S] and `quantized` [N, T, K, C] over K layers.
    """
    if isinstance(features, (str, Path)):
        features = FeatureFile([Path(features)])
    if isinstance(features, FeatureFile):
        return _encode(checkpoint, features)
    if modality is None:
        raise InputError("Of an array it must be said which modality it is.")
    name, x = full_name(modality), np.asarray(features)
    model = checkpoint.model
    if name not in model.config.inputs or x.shape[2:] != model.config.inputs[name]:
        raise InputError(f"{checkpoint.path} reads {dict(model.config.inputs)}, not {name} of {x.shape[2:]}.")
    if x.dtype.kind not in "biuf" or not np.isfinite(x).all():
        raise InputError(f"The array of {name} holds what is no finite number.")
    parameter = next(model.parameters())
    with matmul_precision(checkpoint.description.precision):
        parts = [
            model.encode(name, part.to(parameter.device, parameter.dtype))[1].int().cpu().numpy()
            for part in torch.from_numpy(x).split(256)
        ]
    indices = np.concatenate(parts)
    lengths = np.full(len(x), x.shape[1])
    return Codes(checkpoint, name, [str(number) for number in range(len(x))], lengths, indices)


def cmg(
    task: str,
    checkpoint: Checkpoint | Place | None,
    train: str,
    test: str,
    features: Place = "features",
    data: Place = "data",
    toc: str = "stored",
    **settings: Any,
) -> list[dict]:
    """Records of a task in one direction, as `hdcid cmg` writes them.

    Args:
        checkpoint: None probes the raw features (`--supervised`); `open_checkpoint(path, reading="own")` says what else
            than all of a code is read.
        train, test: modalities learned and tested on.
        features, data: folders of feature files and of annotations.
        settings: fields of `ProbeSettings`, such as `protocol="published"`; `seeds`, how many or which (`(0, 1, 2)`);
            and `layers_used`, `leave_out`, `test_features`, `per_class`, `strict` and `device` as options are called.
    """
    learned_on, tested_on = full_name(train), full_name(test)
    seeds = settings.pop("seeds", 1)
    layers, elsewhere = settings.pop("layers_used", None), settings.pop("test_features", None)
    leave_out = settings.pop("leave_out", None)
    more = {name: settings.pop(name) for name in ("per_class", "strict", "device") if name in settings}
    _refuse_unknown(settings, "cmg", ProbeSettings)
    asked = ProbeSettings(**settings)
    tasks = read_task(task, Path(data), learned_on, tested_on, leave_out)
    sides = open_sides(features, learned_on, tested_on, elsewhere)
    if checkpoint is None:
        for name, idle in (("toc", toc != "stored"), ("layers_used", layers is not None)):
            if idle:
                makes_no_difference(name, NO_CODES)
        reading = read_features(*sides)
    else:
        device = more.get("device", "auto")
        opened = checkpoint if isinstance(checkpoint, Checkpoint) else open_checkpoint(checkpoint, device=device)
        reading = read_codes(opened, *sides, task, toc, layers, asked.published)
    return list(run_task(tasks, reading, asked, range(seeds) if isinstance(seeds, int) else tuple(seeds), **more))


def _refuse_unknown(given: Iterable[str], what: str, *bundles: type) -> None:
    """Raise InputError if there is a setting that none of the bundles has."""
    known = {item.name for bundle in bundles for item in fields(bundle)}
    if unknown := [name for name in given if name not in known]:
        raise InputError(f"There is no setting {unknown[0]!r} of {what}; there are {', '.join(sorted(known))}.")


def read_records(*paths: Place) -> list[dict]:
    """Records in files of JSON Lines, as they stand there; lines that are none are warned of and left out."""
    records = []
    for path in paths:
        with open_regular(path) as stream:
            records += [record for _, record in objects(stream, str(path), warn)]
    return records


def table(records: Iterable[dict], form: str = "markdown", layout: str | None = None, metrics: str = "headline") -> str:
    """Results as tables, one for each kind of data.

    Args:
        form: markdown, latex, csv, json or terminal.
        layout: of a paper's table, such as "table1"; None for one column a quantity.
        metrics: "headline", "all", or names separated by commas; a layout has its own.
    """
    if form not in RENDERERS:
        raise InputError(f"A table is {', '.join(RENDERERS)}, not {form!r}.")
    found = results_of(records, warn)
    return RENDERERS[form](lay_out(layout, found)[0] if layout else pivots(choose_metrics(found, metrics)))
