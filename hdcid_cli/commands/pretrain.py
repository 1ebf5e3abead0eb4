"""`hdcid pretrain`: feature files to a checkpoint."""

from pathlib import Path

import click

from hdcid_cli.commands import options
from hdcid_cli.training.settings import PretrainSettings


@click.command(cls=options.Command)
@options.recipe_option
@options.features_option
@options.checkpoints_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Checkpoint directory; named after the method in the folder of checkpoints if not given.",
)
@click.option(
    "--modalities",
    type=options.MODALITIES,
    default=None,
    help="Such as avt or av; every modality that has a feature file if not given.",
)
@click.option(
    "--split",
    type=click.Path(path_type=Path),
    default=None,
    help=(
        "CSV of id and split: learn from its train clips alone. By default DATA/split.csv, else every clip; but no "
        "clip that a table in DATA is to test or to choose by. `none` for all clips."
    ),
)
@options.data_option
@options.leave_out_option
@options.settings(*PretrainSettings.bundles().values())
def command(features, checkpoints, output, modalities, split, data, leave_out, **values):
    """Features to a checkpoint (DCID, H-DCID and the baselines).

    Goes on where an earlier, interrupted run with the same settings stopped. Under
    torchrun several processes share the work and learn what one would, but for dropout's random numbers.
    """
    from hdcid_cli.core.distributed import in_main_process, main_process_talks
    from hdcid_cli.core.splits import require_data
    from hdcid_cli.tasks.held_out import held_out_by_tasks
    from hdcid_cli.training.plan import clips_to_learn_from, plan
    from hdcid_cli.training.pretrain import pretrain

    with main_process_talks():
        if split is not None and leave_out is None:
            options.tell_idle("--split says what is learned from", "data")
        elif not options.by_default("data"):
            require_data(data)
        if output is not None:
            options.tell_idle("-o names the directory", "checkpoints")
        settings = PretrainSettings.of(**values)
        clips, watched = clips_to_learn_from(features, modalities, split, data, leave_out, held_out_by_tasks(data))
        path = pretrain(plan(features, settings, output, modalities, clips, checkpoints, leave_out, watched))
    if in_main_process():
        click.echo(path)
