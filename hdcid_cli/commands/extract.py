"""`hdcid extract`: media to feature files."""

from pathlib import Path

import click

from hdcid_cli.backbones import BACKBONES, Options, load_backbone
from hdcid_cli.backbones.backbone import PRECISIONS
from hdcid_cli.commands.options import MODALITY, Command, device_option, features_option, workers_option
from hdcid_cli.core.errors import DONE, SOME_SKIPPED, InputError

DEFAULT_PATHS = {"video": "videos", "audio": "videos", "text": "data/captions.csv"}


@click.command(cls=Command)
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--modality", type=MODALITY, required=True, help="What to extract: video, audio or text.")
@click.option("--backbone", type=click.Choice(sum(BACKBONES.values(), ())), help="vgg19 or hog for video, vggish or logmel for audio, bert or hash for text; the first needs weights and is the default.")
@click.option("--weights", metavar="FILE", help="Weights to use instead of the published ones (vgg19, vgg19-torchvision, vggish).")
@click.option("--pca", metavar="FILE", help="PCA and quantise VGGish's embeddings by this file (vggish-pca: the published one).")
@click.option("--model", default="bert-base-uncased", show_default=True, help="Text encoder: a local folder or a name on the Hugging Face hub.")
@click.option("--seconds", type=click.IntRange(min=1), default=10, show_default=True, help="Segments a clip: seconds of video and audio, words of text.")
@click.option("--fps", type=click.IntRange(min=1), default=16, show_default=True, help="Frames a second that video features are the mean of.")
@features_option
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Feature file to write, instead of MODALITY.h5 in --features.")
@click.option("--overwrite", is_flag=True, help="Extract everything anew, whatever the file holds.")
@click.option("--on-error", type=click.Choice(["skip", "fail"]), default="skip", show_default=True, help="What to do with a clip that cannot be read.")
@workers_option
@device_option
@click.option("--precision", type=click.Choice(PRECISIONS), default="auto", show_default=True, help="Of the network; auto is float16 on a GPU, else float32.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Seconds (or captions) that go through the network together; by default what suits the device.")
def command(paths, modality, features, output, overwrite, on_error, workers, backbone, **options):
    """Media to feature files.

    PATH is a media file, a folder of them (videos/ by default), a glob, a .txt
    file that lists paths or a .csv file with the columns id,path,start. Text
    comes from a .csv file with a name and a caption a row (data/captions.csv
    by default) or from .txt files. Run again, it does only what is missing.
    """
    from hdcid_cli.backbones.extraction import extract
    from hdcid_cli.core.features import FeatureWriter
    from hdcid_cli.core.progress import progress, say, warn
    from hdcid_cli.media.clips import find_clips

    seconds = options["seconds"]
    clips = find_clips(paths or [DEFAULT_PATHS[modality]], modality)
    model = load_backbone(modality, backbone, Options(**options))
    path = output or features / f"{modality}.h5"
    attributes = {"modality": modality, "backbone": model.name, "weights": model.weights, "segment_seconds": 1.0}
    with FeatureWriter(path, [clip.id for clip in clips], (seconds, *model.shape), attributes, model.dtype, overwrite) as writer:
        skipped = 0
        done = len(clips) - len(set(writer.pending) & {clip.id for clip in clips})
        with progress(total=len(clips), initial=done, description=modality, unit="clip") as bar:
            for clip, error in extract(clips, model, writer, seconds, 0 if modality == "text" else workers):
                bar.update()
                if error is None:
                    continue
                if on_error == "fail":
                    raise InputError(f"Clip {clip.id!r}: {error}")
                skipped += 1
                bar.clear()
                warn(f"skipped {clip.id!r}: {error}")
        if skipped == len(clips):
            raise InputError(f"None of the {skipped} clips could be read; {path} is not written.")
        writer.finish()
    say(f"{path}: {len(clips) - skipped} clips, {seconds} x {' x '.join(map(str, model.shape))} {model.dtype}" + (f"; {skipped} skipped" if skipped else ""))
    return SOME_SKIPPED if skipped else DONE
