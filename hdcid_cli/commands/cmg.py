"""`hdcid cmg TASK --train M --test N`: cross-modal generalisation."""

from pathlib import Path

import click

from hdcid_cli.commands import options

TASKS = ("ave", "avvp", "ave2avvp", "ucf2vgg", "vggsound", "classify", "localise")


@click.command(cls=options.Command, name="cmg")
@click.argument("task", type=click.Choice(TASKS))
@click.option("--train", type=options.MODALITY, required=True, help="Modality that the decoder learns on.")
@click.option("--test", type=options.MODALITY, required=True, help="Modality that it is tested on.")
@click.option(
    "--protocol",
    type=click.Choice(("heldout", "published")),
    default="heldout",
    show_default=True,
    help=(
        "heldout: choose the epoch on validation clips, report test clips never learned on. published: as the "
        "released code does."
    ),
)
@click.option(
    "--supervised",
    is_flag=True,
    help="Probe the raw features instead of codes: the ceiling of one modality (--train a --test a).",
)
@options.toc_option
@click.option(
    "--layers-used",
    type=click.IntRange(min=1),
    default=None,
    help="Read only the codes of the first layers; all by default.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=None,
    help="Epochs of the decoder; by default 50 to classify and 100 to localise, held out at least 500 steps.",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=80, show_default=True, help="Clips a step.")
@click.option(
    "--lr",
    type=click.FloatRange(min=0, min_open=True),
    default=None,
    help="Adam's rate; 4e-4 by default, 2e-3 with --supervised.",
)
@options.seed_option
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Repeat with so many seeds, counted from --seed.",
)
@click.option("--per-class", is_flag=True, help="Add the scores of every class to the records.")
@click.option(
    "--timelines",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Write true and predicted events of every tested clip there, for `hdcid report`.",
)
@click.option(
    "--strict", is_flag=True, help="Make errors of oddities in the annotations and of clips without features."
)
@options.features_option
@click.option(
    "--test-features",
    type=click.Path(path_type=Path),
    default=None,
    help="Features to test on, where they lie elsewhere.",
)
@options.checkpoint_option
@options.checkpoints_option
@options.data_option
@options.device_option
@options.json_option
def command(task, as_json, **settings):
    """Cross-modal generalisation: learn on one modality, test on another.

    A small decoder learns TASK on the frozen codes of one modality and answers
    it from the codes of another. Annotations are looked for in DATA/TASK/ and
    in DATA.

    \b
    ave       one class a clip (AVE)
    avvp      events of each second (LLP)
    ave2avvp  learn on AVE, find events in LLP
    ucf2vgg   video of UCF-101, audio of VGGSound
    vggsound  VGGSound-AVEL: one class a clip, and each second where times are given
    classify  your own table: id,split,label
    localise  your own table: id,split,label,onset,offset
    """
    from hdcid_cli.core.records import emit
    from hdcid_cli.tasks.cmg.run import run_task

    emit(run_task(task, **settings), as_json)
