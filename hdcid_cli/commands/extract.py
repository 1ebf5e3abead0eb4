"""`hdcid extract`: media to feature files."""

import os
from pathlib import Path

import click

from hdcid_cli.backbones import BACKBONES, Options
from hdcid_cli.backbones.backbone import POOLS, PRECISIONS
from hdcid_cli.commands import options
from hdcid_cli.commands.options import MODALITY, Command, device_option, features_option, workers_option
from hdcid_cli.core.errors import DONE, SOME_SKIPPED, InputError

DEFAULT_PATHS = {"video": "videos", "audio": "videos", "text": "data/captions.csv"}


# "video vgg19 or hog, ..."
NAMES = ", ".join(f"{modality} {' or '.join(names)}" for modality, names in BACKBONES.items())


class ShardType(click.ParamType):
    """`2/8` -> (2, 8)."""

    name = "I/N"

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        number, _, shards = value.partition("/")
        if not (number.isdecimal() and shards.isdecimal() and 1 <= int(number) <= int(shards)):
            raise InputError(f"--shard {value} should be I/N, such as 2/8: part I of N, counted from 1.")
        return int(number), int(shards)


SHARD = ShardType()
WORTH_TELLING = 10.0  # seconds; how fast a shorter job was is mostly how fast it started


@click.command(cls=Command)
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--modality", type=MODALITY, required=True, help="What to extract: video, audio or text.")
@click.option(
    "--backbone",
    metavar="NAME",
    help=f"{NAMES}; or any model of transformers, a folder or a name on the Hugging Face hub, NAME or NAME@REVISION.",
)
@click.option(
    "--pool",
    type=click.Choice(POOLS),
    help=(
        "What of a model's states: of video grid or cls, of audio mean or cls, of text words, mean or cls; the first "
        "is the default. cls is its one summary; of paired models (CLIP, CLAP) the vector that both sides share."
    ),
)
@click.option(
    "--grid",
    type=options.whole(),
    help="Cells along each side of a model's video features, 7 by default; 1: vectors.",
)
@click.option(
    "--layer",
    type=options.whole(0),
    help="Hidden layer of a model to take, 0 its embeddings; by default its output.",
)
@click.option("--prompt", metavar="TEXT", help="Sentence that a model reads each text in, at {}: 'a photo of a {}'.")
@click.option(
    "--weights", metavar="FILE", help="Weights to use instead of the published ones (vgg19, vgg19-torchvision, vggish)."
)
@click.option(
    "--pca", metavar="FILE", help="PCA and quantise VGGish's embeddings by this file (vggish-pca: the published one)."
)
@click.option(
    "--model",
    default=Options.model,
    show_default=True,
    help="Text encoder: a local folder or a name on the Hugging Face hub, NAME or NAME@REVISION.",
)
@click.option(
    "--allow-pickle",
    is_flag=True,
    help="Take a model's pytorch_model.bin where it has no safetensors; only tensors are read from it.",
)
@click.option(
    "--seconds",
    type=options.whole(),
    default=Options.seconds,
    show_default=True,
    help="Segments a clip: seconds of video and audio, words of text.",
)
@click.option(
    "--fps",
    type=options.whole(),
    default=Options.fps,
    show_default=True,
    help="Frames a second that video features are the mean of.",
)
@features_option
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Feature file to write, instead of MODALITY.h5 in --features.",
)
@click.option("--overwrite", is_flag=True, help="Extract everything anew, whatever the file holds.")
@click.option(
    "--on-error",
    type=click.Choice(["skip", "fail"]),
    default="skip",
    show_default=True,
    help="What to do with a clip that cannot be read.",
)
@workers_option
@device_option
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default=True,
    help="Of the network; auto is float16 on a GPU, else float32.",
)
@click.option(
    "--batch-size",
    type=options.whole(),
    help="Seconds (of encoders of sound: windows; of text: captions) that go through the network together.",
)
@click.option(
    "--shard",
    type=SHARD,
    help=(
        "Only part I of N, into a file of its own; readers take the N as one. Under torchrun each rank takes its part."
    ),
)
def command(paths, modality, backbone, features, output, overwrite, on_error, workers, shard, **chosen):
    """Media to feature files.

    PATH is a media file, a folder of them (videos/ by default), a glob, a .txt
    file that lists paths or a .csv file with the columns id,path,start. Text
    comes from a .csv file with a name and a caption a row (data/captions.csv
    by default) or from .txt files. Run again, it does only what is missing.
    """
    from hdcid_cli.backbones.extraction import ExtractionSettings, extract
    from hdcid_cli.core.progress import counted, say

    if output:
        options.tell_idle("-o names the file", "features")
    if modality == "text":
        options.tell_idle("in texts there is nothing to decode", "workers")
    default = DEFAULT_PATHS[modality]
    if not paths and not os.path.exists(default):
        raise InputError(
            f"There is no {default} here: name what to extract, as in `hdcid extract --modality {modality} PATH`."
        )
    done = extract(
        paths or [default],
        modality,
        output or features / f"{modality}.h5",
        backbone,
        Options(**chosen),
        ExtractionSettings(overwrite, on_error, workers, shard),
    )
    say(
        f"{done.path}: {counted(len(done.clips), 'clip')} of {' x '.join(map(str, done.shape))}"
        + (f", {len(done.skipped)} skipped" if done.skipped else "")
        + ("" if done.computed or done.skipped else " (they were there already)")
        + (f"; {done.speed}" if done.clock.seconds > WORTH_TELLING else "")
    )
    return SOME_SKIPPED if done.skipped else DONE
