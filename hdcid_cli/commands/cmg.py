"""`hdcid cmg TASK --train M --test N`: cross-modal generalisation."""

from pathlib import Path

import click

from hdcid_cli.commands import options
from hdcid_cli.tasks.cmg.protocol import ProbeSettings
from hdcid_cli.tasks.cmg.tasks import TASKS

HELP = """Cross-modal generalisation: learn on one modality, test on another.

A small decoder learns TASK on the frozen codes of one modality and answers
it from the codes of another. Annotations are looked for in DATA/TASK/ and
in DATA.

\b
""" + "\n".join(f"{name.ljust(max(map(len, TASKS)))}  {task.summary}" for name, (task, *_) in TASKS.items())


@click.command(cls=options.Command, name="cmg", help=HELP)
@click.argument("task", type=options.NameType(list(TASKS)), metavar="TASK")
@click.option("--train", type=options.MODALITY, required=True, help="Modality that the decoder learns on.")
@click.option("--test", type=options.MODALITY, required=True, help="Modality that it is tested on.")
@click.option(
    "--supervised",
    is_flag=True,
    help="Probe the raw features instead of codes: the ceiling of one modality (--train a --test a).",
)
@options.toc_option("128, 224/196 (V->A/A->V) or paper")
@options.read_option
@click.option(
    "--layers-used",
    type=options.whole(),
    default=None,
    help="Read only the codes of the first layers; all by default.",
)
@options.settings(ProbeSettings)
@options.seed_option
@click.option(
    "--seeds",
    type=options.whole(1, 1000),
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
    "--curves",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Write an open set's histograms of scores and OSCR curve there.",
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
@options.leave_out_option
@options.device_option
@options.json_option
def command(task, train, test, data, features, test_features, supervised, seed, seeds, as_json, **given):
    from hdcid_cli.codes.checkpoint import open_checkpoint
    from hdcid_cli.core.records import emit
    from hdcid_cli.tasks.cmg.reading import NO_CODES, check_supervised, open_sides, read_codes, read_features
    from hdcid_cli.tasks.cmg.run import Drawings, read_task, run_task

    if supervised:
        check_supervised(train, test)
        options.tell_idle(NO_CODES, "toc", "read", "layers_used", "checkpoint", "checkpoints")
    settings = options.take(ProbeSettings, given)
    tasks = read_task(task, data, train, test, given["leave_out"])
    sides = open_sides(features, train, test, test_features)
    if supervised:
        reading = read_features(*sides)
    else:
        checkpoint = open_checkpoint(given["checkpoint"], given["checkpoints"], given["device"], given["read"])
        reading = read_codes(checkpoint, *sides, task, given["toc"], given["layers_used"], settings.published)
    more = {name: given[name] for name in ("per_class", "strict", "device")}
    drawings = Drawings(given["timelines"], given["curves"])
    emit(run_task(tasks, reading, settings, range(seed, seed + seeds), drawings=drawings, **more), as_json)
