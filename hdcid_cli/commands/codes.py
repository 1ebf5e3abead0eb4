"""`hdcid codes`: what the codes mean, and where they occur."""

from pathlib import Path

import click

from hdcid_cli.commands import options
from hdcid_cli.core.errors import InputError
from hdcid_cli.tasks.cmg.tasks import TASKS

# Of a terminal's table; what all records share stands above it.
COLUMNS = ("direction", "metric", "value", "chance", "n")


@click.command(cls=options.Command)
@click.argument("task", required=False, type=options.NameType(list(TASKS)), metavar="[TASK]")
@click.option(
    "--modalities",
    type=options.MODALITIES,
    default=None,
    help="Such as av; by default those of the model, without text.",
)
@click.option(
    "--split",
    type=click.Choice(("train", "val", "test", "all")),
    default="test",
    show_default=True,
    help="Clips that are counted.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Write P(label | code) of every modality and layer there, as CSV.",
)
@click.option("--clip", default=None, help="Instead of TASK: find in this clip where --test uses the codes of --train.")
@click.option(
    "--train",
    type=options.MODALITY,
    default="a",
    show_default=True,
    help="With --clip: the modality whose codes are looked for.",
)
@click.option(
    "--test",
    type=options.MODALITY,
    default="v",
    show_default=True,
    help="With --clip: the modality in which they are looked for.",
)
@click.option(
    "--plot",
    type=options.PictureFile(),
    default=None,
    help="With --clip: draw the map of both modalities' seconds there.",
)
@options.features_option
@options.checkpoint_option
@options.checkpoints_option
@options.data_option
@options.device_option
@options.json_option
def command(
    task, modalities, split, output, clip, train, test, plot, features, checkpoint, checkpoints, data, device, as_json
):
    """What the codes mean, and where they occur in a clip.

    \b
    hdcid codes avvp -o codes.csv
    hdcid codes --clip dQw4w9WgXcQ --train a --test v --plot map.png

    With TASK, one of those of `hdcid cmg`, the codes of annotated seconds are counted against their labels:
    purity, normalised and adjusted mutual information, codes used, and the
    codes that two modalities use for the same label (which ones, --json says).
    Where TASK has classes of clips alone, every second is of its clip's class;
    and so is every word, with t among the --modalities.
    With --clip no annotation is needed.
    """
    from hdcid_cli.codes.checkpoint import open_checkpoint
    from hdcid_cli.core.features import open_features
    from hdcid_cli.core.records import emit
    from hdcid_cli.tasks.analysis.location import locate
    from hdcid_cli.tasks.analysis.meaning import analyze, read_labels

    if (task is None) == (clip is None):
        raise InputError(
            "Say either whose annotations to count by, as in `hdcid codes avvp`, or which clip to look into "
            "with --clip."
        )
    if clip is not None:
        if output:
            raise InputError("-o takes what codes stand for in annotated clips: name a TASK instead of --clip.")
        options.tell_idle(
            "--clip compares the codes of --train and --test, without annotations", "modalities", "split", "data"
        )
        opened = open_checkpoint(checkpoint, checkpoints, device)
        found = locate(opened, clip, open_features(features, train), open_features(features, test), plot)
        emit(found, as_json, tuple(found[0]))
        return
    if plot:
        raise InputError("--plot draws one clip: name it with --clip.")
    options.tell_idle(f"it goes with --clip, and --modalities says whose codes {task} counts", "train", "test")
    opened = open_checkpoint(checkpoint, checkpoints, device)
    wanted = modalities or [name for name in opened.inputs if name != "text"]
    annotations = {name: read_labels(task, data, name) for name in wanted}
    files = [open_features(features, name) for name in wanted]
    records = analyze(opened, files, annotations, split, output, task)
    emit(records, as_json, ("data", "annotations", "protocol", "checkpoint_name", "codebook", *COLUMNS))
