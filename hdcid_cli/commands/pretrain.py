"""`hdcid pretrain`: feature files to a checkpoint."""

from pathlib import Path

import click

from hdcid_cli.commands import options
from hdcid_cli.core.registry import listed
from hdcid_cli.models.quantizers import QUANTIZERS
from hdcid_cli.training.alignments import ALIGNMENTS


class SaveEvery(click.ParamType):
    """`5` minutes or `500steps` -> what `Run` calls them, {"save_seconds": 300.0} or {"save_steps": 500}."""

    name = "minutes|Nsteps"

    def convert(self, value, param, ctx):
        if isinstance(value, dict):
            return value
        text = str(value).strip()
        try:
            if text.endswith("steps"):
                found = {"save_steps": int(text.removesuffix("steps"))}
            else:
                found = {"save_seconds": 60 * float(text)}
        except ValueError:
            self.fail(f"{text!r} is neither a number of minutes nor of steps, such as 500steps.", param, ctx)
        if not (0 <= found.get("save_seconds", 0) < float("inf") and found.get("save_steps", 1) > 0):
            self.fail(f"{text!r} is no time to wait for.", param, ctx)
        return found


@click.command(cls=options.Command)
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
@click.option(
    "--layers",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Disentangling layers: 0 none, 1 DCID, 2 H-DCID.",
)
@click.option(
    "--align",
    default="cpc,cmcm",
    show_default=True,
    help=f"What pulls the modalities together, separated by commas: {', '.join(ALIGNMENTS)}.",
)
@click.option("--quantizer", default="vq", show_default=True, help=f"{listed(QUANTIZERS)}.")
@click.option(
    "--codebook", type=click.IntRange(min=2), default=400, show_default=True, help="Codes in each layer's codebook."
)
@click.option(
    "--dim", type=click.IntRange(min=1), default=256, show_default=True, help="Width of codes and general features."
)
@click.option(
    "--dropout",
    type=click.FloatRange(0, 1),
    default=0.3,
    show_default=True,
    help="In the general encoders (published: 0.1).",
)
@click.option(
    "--spatial-attention",
    type=click.Choice(["sum", "softmax"]),
    default="sum",
    show_default=True,
    help="How cells of a map are weighed: all alike (as published), or softmax.",
)
@click.option(
    "--standardize/--no-standardize",
    default=True,
    show_default=True,
    help="Bring every feature channel to mean 0 and deviation 1; the published code does not.",
)
@click.option(
    "--padding",
    type=click.Choice(["repeat", "mask"]),
    default="repeat",
    show_default=True,
    help="Segments after a short clip's last: taken as they are (published), or kept out of everything.",
)
@click.option(
    "--epochs", type=click.IntRange(min=1), default=None, help="If not given, 5, or as many as make 480 steps."
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=None,
    help="Clips a step, over all processes; 80, or 40 where there are fewer than 2000 clips.",
)
@click.option(
    "--lr",
    type=click.FloatRange(min=0, min_open=True),
    default=1e-3,
    show_default=True,
    help="Learning rate of Adam (published: 4e-4).",
)
@click.option(
    "--schedule",
    type=click.Choice(["trapezoid", "cosine", "constant", "steps"]),
    default="trapezoid",
    show_default=True,
    help=(
        "Of the learning rate: trapezoid goes down over the last 30 %; steps (published) halves it after epochs "
        "10, 20 and 30."
    ),
)
@click.option(
    "--warmup",
    type=click.IntRange(min=0),
    default=None,
    help="Layer k joins after (k - 1) times so many epochs; two fifths of the epochs if not given.",
)
@click.option(
    "--cpc-steps",
    type=click.Choice(["all", "random"]),
    default="all",
    show_default=True,
    help="Score CPC at every step of a clip, or at one drawn at random (as published).",
)
@click.option(
    "--cpc-layers", type=click.IntRange(min=1), default=2, show_default=True, help="Layers of CPC's context LSTM."
)
@click.option(
    "--cpc-horizon",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many future steps CPC predicts.",
)
@click.option(
    "--club",
    type=click.Choice(["sampled", "exact", "none"]),
    default="sampled",
    show_default=True,
    help="CLUB bound: one other clip each (as published), all pairs (eq. 12), or none.",
)
@click.option(
    "--club-gradient",
    type=click.Choice(["specific", "both"]),
    default="specific",
    show_default=True,
    help="Which encoders the CLUB bound trains (published: both).",
)
@click.option(
    "--club-weight",
    type=click.FloatRange(min=0),
    default=0.05,
    show_default=True,
    help="Weight of the CLUB bound (published: 1).",
)
@click.option(
    "--mm-ema/--no-mm-ema",
    default=True,
    show_default=True,
    help="Codes follow the features of all modalities, or of the one that chose them alone.",
)
@click.option(
    "--codebook-updates",
    type=click.IntRange(1, 6),
    default=1,
    show_default=True,
    help="Updates of the codebook a step (published: 6).",
)
@click.option(
    "--decay", type=click.FloatRange(0, 1), default=0.99, show_default=True, help="Of the codebook's moving averages."
)
@click.option(
    "--codebook-start",
    type=click.Choice(["data", "uniform"]),
    default="data",
    show_default=True,
    help="Codes on features of the first batch, or uniform in +-1/L (as published).",
)
@click.option(
    "--revival",
    type=click.Choice(["persistent", "published", "none"]),
    default="persistent",
    show_default=True,
    help="What happens to codes that nobody uses.",
)
@click.option(
    "--idle",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="Updates after which an unused code is replaced (published: 300).",
)
@click.option(
    "--precision", type=click.Choice(["float64", "float32", "tf32", "bf16"]), default="float32", show_default=True
)
@click.option(
    "--cache",
    type=click.Choice(["auto", "ram", "device", "none"]),
    default="auto",
    show_default=True,
    help=(
        "Where to keep the features: in memory, on the device that computes, or in their files alone; auto keeps "
        "in memory what fits."
    ),
)
@click.option("--compile", "compile_", is_flag=True, help="Compile the model with torch.compile.")
@click.option("--tensorboard", is_flag=True, help="Write the metrics for TensorBoard too.")
@click.option(
    "--save-every",
    type=SaveEvery(),
    default="5",
    show_default=True,
    help="Minutes between two saves, or steps, such as 500steps.",
)
@click.option(
    "--keep", type=click.IntRange(min=0), default=0, show_default=True, help="Older versions of the model to keep."
)
@click.option("--overwrite", is_flag=True, help="Start again where a checkpoint is.")
@options.seed_option
@options.device_option
def command(**values):
    """Features to a checkpoint (DCID, H-DCID and the baselines).

    Goes on where an earlier, interrupted run with the same settings stopped. Under
    torchrun several processes share the work and learn the same as one.
    """
    from hdcid_cli.core.distributed import in_main_process
    from hdcid_cli.core.progress import silence
    from hdcid_cli.training.pretrain import pretrain
    from hdcid_cli.training.recipe import run_from_options

    if not in_main_process():
        silence()
    path = pretrain(run_from_options(values))
    if in_main_process():
        click.echo(path)
