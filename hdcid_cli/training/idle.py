"""What was chosen about a run and makes no difference to it."""

from typing import cast

from hdcid_cli.core.settings import tell_idle
from hdcid_cli.models.assembled import Model
from hdcid_cli.models.quantizers import completed
from hdcid_cli.models.quantizers.quantizer import Quantizer
from hdcid_cli.training.alignments import READS
from hdcid_cli.training.objective import Objective
from hdcid_cli.training.settings import ObjectiveSettings, PretrainSettings


def tell_idle_settings(settings: PretrainSettings, model: Model, objective: Objective) -> None:
    """Say which settings of a run, filled in by `plan`, were chosen and make no difference to its model and losses."""
    built, losses, train = settings.model, settings.objective, settings.train
    kind = built.quantizer.partition(":")[0]
    if kind != "aligned":
        tell_idle(built, ["cascade"], f"{kind} has no blocks of modalities to draw together")
    if kind == "fsq" and built.quantizer != completed(kind, built.codebook) and not {"codis", "turn"} & _names(losses):
        tell_idle(built, ["codebook"], f"the levels of {built.quantizer} say how many codes there are")
    if not model.config.reads_maps:
        tell_idle(built, ["spatial_attention", "cell_hidden", "map_encoder"], "no features are maps")
    elif built.layers == 0:
        tell_idle(built, ["map_encoder"], "with --layers 0 nothing is disentangled")
    _tell_idle_of_alignments(losses)
    if losses.align_on == "both" and objective.config.align_on == "features":
        tell_idle(losses, ["align_on"], "no alignment compares features that codes replace")
    if not objective.club_parameters():
        why = "--club none" if losses.club == "none" else "nothing is disentangled"
        tell_idle(losses, ["club_weight", "club_gradient"], f"there is no CLUB bound, as {why}")
    if len(model.layers) == 1:
        tell_idle(losses, ["deeper"], "there is one layer")
        tell_idle(train, ["warmup"], "there is one layer")
    if not cast(Quantizer, model.code_layers[0].quantizer).learns_by_ema:
        still = f"the codes of {kind} follow no moving averages"
        tell_idle(losses, ["mm_ema"], still)
        tell_idle(train, ["codebook_updates", "decay", "codebook_start", "revival", "idle"], still)
    elif train.revival == "none":
        tell_idle(train, ["idle"], "no code is replaced, as --revival none says")


def _names(losses: ObjectiveSettings) -> set[str]:
    """`cpc:av` -> `cpc`."""
    return {text.partition(":")[0] for text in losses.align}


def _tell_idle_of_alignments(losses: ObjectiveSettings) -> None:
    """Of what only some alignments read; nothing is known of what one from outside reads."""
    names = _names(losses)
    if names <= READS.keys():
        read = {setting for name in names for setting in READS[name]}
        for setting in dict.fromkeys(each for settings in READS.values() for each in settings if each not in read):
            readers = " and ".join(name for name, settings in READS.items() if setting in settings)
            tell_idle(losses, [setting], f"it is of --align {readers}")
