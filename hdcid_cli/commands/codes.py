"""`hdcid codes`: what the codes mean, and where they occur."""

from pathlib import Path

import click

from hdcid_cli.commands import options
from hdcid_cli.commands.cmg import TASKS
from hdcid_cli.core.errors import InputError


@click.command(cls=options.Command)
@click.argument("task", required=False, type=click.Choice(TASKS))
@click.option(
    "--modalities", type=options.MODALITIES, default=None, help="Such as av; those of the model if not given."
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
    type=click.Path(dir_okay=False, path_type=Path),
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

    With TASK the codes of annotated seconds are counted against their labels:
    purity, normalised mutual information, codes used, and the codes that two
    modalities use for the same label. With --clip no annotation is needed.
    """
    from hdcid_cli.core.records import emit
    from hdcid_cli.tasks.code_events import analyse, locate

    if (task is None) == (clip is None):
        raise InputError(
            "Say either whose annotations to count by, as in `hdcid codes avvp`, or which clip to look into "
            "with --clip."
        )
    where = {"features": features, "checkpoint": checkpoint, "checkpoints": checkpoints, "device": device}
    if clip is None:
        if plot:
            raise InputError("--plot draws one clip: name it with --clip.")
        records = analyse(task, data, modalities=modalities, split=split, output=output, **where)
        emit(records, as_json, ("direction", "metric", "value", "chance", "n", "shared"))
        return
    found = list(locate(clip, train, test, plot=plot, **where))
    emit(found, as_json, tuple(found[0]))
