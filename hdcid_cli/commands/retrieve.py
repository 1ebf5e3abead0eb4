"""`hdcid retrieve --query M --gallery N`: cross-modal retrieval."""

from pathlib import Path

import click

from hdcid_cli.commands import options
from hdcid_cli.models.assembled import ENCODINGS


@click.command(cls=options.Command)
@click.option("--query", type=options.MODALITY, required=True, help="Modality of the queries.")
@click.option("--gallery", type=options.MODALITY, required=True, help="Modality that is ranked.")
@click.option(
    "--by",
    type=click.Choice(("summary", "codes", "both", "all")),
    default="all",
    show_default=True,
    help="Compare mean features, histograms of codes, or both added; all reports each.",
)
@click.option(
    "--clips",
    type=click.Choice(("heldout", "all")),
    default="heldout",
    show_default=True,
    help="heldout: only clips that the model was not pretrained on.",
)
@click.option(
    "--captions",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Table of texts and the clips that they belong to (columns id,clip), where a clip has several.",
)
@click.option(
    "--limit",
    type=options.whole(2),
    default=None,
    help="Rank so many clips at most, evenly spaced: ranking takes time by the square of their number.",
)
@click.option(
    "--codes",
    type=click.Choice(list(ENCODINGS)),
    default=None,
    help=f"What has a code of its own: {'; '.join(f'{name}, {what}' for name, what in ENCODINGS.items())}. FCID has "
    "both, and takes clips if not told; other models have seconds.",
)
@options.toc_option("128, or 224/196 (asked with video, or not)")
@options.read_option
@options.features_option
@click.option(
    "--gallery-features",
    type=click.Path(path_type=Path),
    default=None,
    help="Features of the gallery, where they lie elsewhere.",
)
@options.checkpoint_option
@options.checkpoints_option
@options.device_option
@options.json_option
def command(query, gallery, features, gallery_features, checkpoint, checkpoints, device, read, as_json, **settings):
    """Query one modality, rank another.

    Every clip of the one feature file asks for itself in the other. Reported
    are the share found at rank 1, in the first 5 and 10, and the median rank;
    `n` is the number of clips that are ranked.
    """
    from hdcid_cli.codes.checkpoint import open_checkpoint
    from hdcid_cli.core.features import open_features
    from hdcid_cli.core.records import emit
    from hdcid_cli.tasks.retrieval import RetrievalSettings, retrieve

    opened = open_checkpoint(checkpoint, checkpoints, device, read)
    files = open_features(features, query), open_features(gallery_features or features, gallery)
    emit(retrieve(opened, *files, RetrievalSettings(**settings)), as_json)
