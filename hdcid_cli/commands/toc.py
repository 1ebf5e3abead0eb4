"""`hdcid toc`: channel selection, stored in the checkpoint for the tasks to use."""

from pathlib import Path

import click

from hdcid_cli.commands import options


@click.command(cls=options.Command)
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@options.checkpoints_option
@click.option(
    "--keep",
    type=options.whole(),
    default=None,
    help="Channels to keep in each layer; half of them if not given.",
)
@click.option(
    "--criterion",
    type=click.Choice(["both", "similarity", "variance"]),
    default="both",
    show_default=True,
    help="What a channel is judged by (Table 5).",
)
@click.option(
    "--lambda",
    "lam",
    type=options.number(least=0, most=1),
    default=0.7,
    show_default=True,
    help="Weight of similarity against variance (eq. 11).",
)
@click.option(
    "--mix",
    default="1:0",
    show_default=True,
    help="Shares of the best and the worst channels, as the released code can mix them: 1:0, 3:1, 1:1.",
)
@click.option(
    "--normalise/--raw",
    default=True,
    show_default=True,
    help="Codes of unit length first, as in the paper; the released code leaves them raw.",
)
@click.option(
    "--released", is_flag=True, help="Divide by L (L - 1) and use the unbiased variance, as the released code does."
)
@click.option(
    "--plot",
    type=options.PictureFile(),
    default=None,
    help="Draw the code-similarity heat maps before and after (Fig. 2) to this file.",
)
@options.json_option
@options.device_option
def command(checkpoint, checkpoints, keep, criterion, lam, mix, normalise, released, plot, as_json, device):
    """Choose codebook channels without training.

    CHECKPOINT is the latest one if not given. The selection is stored in it, and
    `cmg`, `segment` and `encode` use it unless --toc says otherwise.
    """
    from hdcid_cli.codes import toc
    from hdcid_cli.codes.checkpoint import TOC, open_checkpoint
    from hdcid_cli.core.records import emit

    if criterion != "both":
        options.tell_idle(f"channels are judged by {criterion} alone", "lam")
    opened = open_checkpoint(checkpoint, checkpoints, device)
    settings = {
        "criterion": criterion,
        "lam": lam,
        "mix": toc.parse_mix(mix),
        "normalise": normalise,
        "released": released,
    }
    selection = toc.select(opened.codebooks, keep or max(1, opened.codebooks[0].shape[1] // 2), **settings)
    selection.save(opened.path / TOC)
    if plot:
        from hdcid_cli.codes.toc_plot import plot_similarities

        plot_similarities(opened.codebooks, selection, plot)
    emit(
        toc.describe(opened, selection),
        as_json,
        ("layer", "kept", "of", "similarity before", "similarity after", "checkpoint"),
    )
