"""`hdcid segment`: the pixels that a sound or a sentence names."""

from pathlib import Path

import click

from hdcid_cli.commands import options
from hdcid_cli.core.errors import DONE, SOME_SKIPPED, InputError
from hdcid_cli.core.modalities import letter, modality
from hdcid_cli.tasks.segmentation.settings import SegmenterTrainSettings


class Queries(click.ParamType):
    """`a`, `t` or `both` -> ("audio",), ("text",) or both of them."""

    name = "a|t|both"

    def convert(self, value, param, ctx):
        names = ("audio", "text") if value == "both" else (modality(value),)
        if "video" in names:
            raise InputError("Video is what is searched: ask with sounds (a) or prompts (t).")
        return names


@click.group(cls=options.Group, invoke_without_command=True, subcommand_metavar="[predict VIDEO --query Q]")
@click.option(
    "--train",
    type=Queries(),
    metavar="a|t",
    help="Queries to learn from: the clips' sounds, or the prompts of their categories.",
)
@click.option("--test", type=Queries(), help="Queries to test with.")
@options.features_option
@options.data_option
@options.checkpoints_option
@options.checkpoint_option
@click.option(
    "--toc",
    default="stored",
    show_default=True,
    help="Channels of a query: none, stored (in the checkpoint), or how many, such as 128.",
)
@options.read_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Directory of the segmenter; segment-a, segment-t, ... in the folder of checkpoints if not given.",
)
@click.option(
    "--backbone",
    default="pvt_v2_b5",
    show_default=True,
    help=(
        "Picture encoder: pvt_v2_b5, pvt_v2_b0, resnet50, resnet18, resnet10 (small, with --random-weights), or "
        "a folder or hub name of such a model."
    ),
)
@click.option(
    "--random-weights",
    is_flag=True,
    help="Train the picture encoder from nothing; the query then counts in full from the first step.",
)
@click.option(
    "--size",
    type=options.whole(32, 4096),
    default=224,
    show_default=True,
    help="Pictures are SIZE x SIZE; a multiple of 32.",
)
@click.option("--width", type=options.whole(8, 4096), default=256, show_default=True, help="Channels of the decoder.")
@options.settings(SegmenterTrainSettings)
@click.option(
    "--protocol",
    type=click.Choice(["heldout", "published"]),
    default="heldout",
    show_default=True,
    help="Choose the epoch on val by the queries learned from, or by those tested with.",
)
@click.option("--blind", is_flag=True, help="Baseline: the same query for every clip.")
@click.option(
    "--overlay",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for one picture a test clip: frames, truth, and what was found.",
)
@click.option(
    "--save-every", type=options.number(least=0), default=5.0, show_default=True, help="Minutes between two saves."
)
@click.option("--overwrite", is_flag=True, help="Train again where a segmenter is.")
@options.device_option
@options.json_option
@click.pass_context
def command(
    context,
    train,
    test,
    features,
    data,
    checkpoints,
    checkpoint,
    toc,
    read,
    output,
    save_every,
    as_json,
    **values,
):
    """Find the pixels that a sound or a sentence names.

    Learns on AVSBench-S4 (DATA/avs_s4), asked with the codes of sounds or of
    prompts, and is tested with either; --train a --test t is the paper's A2T.
    The feature files must hold the clips' sounds and the categories' prompts:

    \b
      hdcid extract --modality audio data/avs_s4/s4_data/audio_wav
      hdcid extract --modality text data/avs_s4/AVSBenchCategories2Prompts.csv

    An interrupted training is taken up by the same command, and a finished one
    is not repeated to test with other queries. `hdcid segment predict` asks a
    trained segmenter about a video of your own.
    """
    if context.invoked_subcommand:
        if given := options.given():
            raise click.UsageError(f"`hdcid segment predict` takes its options after `predict`: {given[0]} is before.")
        return None
    for name, value in (("--train", train), ("--test", test)):
        if value is None:
            raise click.UsageError(f"Missing option '{name}': say which queries, as in --train a --test t.")

    from hdcid_cli.codes.checkpoint import open_checkpoint
    from hdcid_cli.codes.toc import resolve_toc
    from hdcid_cli.core.progress import warn
    from hdcid_cli.core.records import emit
    from hdcid_cli.tasks.segmentation.experiment import Experiment, run

    if len(train) > 1:
        raise InputError("--train takes one kind of query, a or t; --test takes both.")
    opened = open_checkpoint(checkpoint, checkpoints, values["device"], read)
    experiment = Experiment(
        train=train[0],
        test=test,
        checkpoint=opened,
        selection=resolve_toc(toc, opened, "segment", train[0]),
        features=features,
        data=data,
        output=output or checkpoints / f"segment-{letter(train[0])}{'-blind' if values['blind'] else ''}",
        settings=options.take(SegmenterTrainSettings, values),
        save_seconds=60 * save_every,
        **values,
    )
    left_out: dict[str, str] = {}
    emit(run(experiment, left_out), as_json)
    for name, reason in left_out.items():
        warn(f"skipped {name}: {reason}")
    return SOME_SKIPPED if left_out else DONE


@command.command("predict", cls=options.Command)
@click.argument("video", type=click.Path(path_type=Path))
@click.option("--query", required=True, help="What to look for: words, or a sound file.")
@click.option(
    "--segmenter",
    type=click.Path(path_type=Path),
    help="Directory of a trained segmenter; segment-a or segment-t in the folder of checkpoints if not given.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default="segments",
    show_default=True,
    help="Folder for the pictures.",
)
@click.option("--weights", help="Weights of the backbone that makes the query's features (vggish), if not its own.")
@options.checkpoints_option
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="The model that the segmenter was trained with; looked for in the folder of checkpoints if not given.",
)
@options.device_option
@options.json_option
def predict_command(video, query, segmenter, output, weights, checkpoints, checkpoint, device, as_json):
    """Ask a trained segmenter about a video of your own.

    Every second gives a picture with what was found in colour, and its mask.
    """
    from hdcid_cli.core.records import emit
    from hdcid_cli.tasks.segmentation.directory import find_segmenter
    from hdcid_cli.tasks.segmentation.predict import predict

    found = predict(
        video, query, find_segmenter(segmenter, checkpoints), output, checkpoint, checkpoints, weights, device
    )
    emit(found, as_json, ("second", "share", "overlay", "mask"))
