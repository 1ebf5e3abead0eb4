"""What pulls the modalities together, by the names of `--align` (Table 3).

Each is a subclass of `Alignment` (`losses/alignment.py`) in a file of its own.
"""

from collections.abc import Iterable

from hdcid_cli.core.registry import Entry

ALIGNMENTS = {
    "cpc": Entry("cross-modal contrastive predictive coding", "hdcid_cli.training.losses.cpc:CPC"),
    "cmcm": Entry("cross-modal code matching", "hdcid_cli.training.losses.cmcm:CMCM"),
    "smit": Entry("contrast with an adaptive margin (Spoken Moments)", "hdcid_cli.training.losses.smit:SMiT"),
    "mst": Entry("contrast through one shared transformer (MS-CLIP)", "hdcid_cli.training.losses.mst:MST"),
    "codis": Entry("a teacher's shares of prototypes (CODIS)", "hdcid_cli.training.losses.codis:CODIS"),
    "turn": Entry("self- and cross-reconstruction from prototypes (TURN)", "hdcid_cli.training.losses.turn:TURN"),
    "infonce": Entry("contrast of clips, both ways", "hdcid_cli.training.losses.infonce:InfoNCE"),
    "seconds": Entry("contrast of seconds, both ways", "hdcid_cli.training.losses.seconds:Seconds"),
    "fcmi": Entry("fine and coarse masked contrast (MICU)", "hdcid_cli.training.losses.fcmi:FCMI"),
    "cujp": Entry("a jigsaw of the modalities' codes (MICU)", "hdcid_cli.training.losses.cujp:CUJP"),
}
# Settings that ours read, and no other part of a run does.
READS: dict[str, tuple[str, ...]] = {
    "cpc": ("cpc_steps", "cpc_layers", "cpc_horizon"),
    "cmcm": (),
    "smit": (),
    "mst": (),
    "codis": (),
    "turn": (),
    "infonce": ("temperature",),
    "seconds": ("temperature",),
    "fcmi": ("mask_ratio", "mask"),
    "cujp": ("jigsaw_parts", "jigsaw_permutations"),
}


def asked_of_model(align: Iterable[str]) -> dict[str, bool]:
    """Fields of `ModelSettings` that are true with some alignments, and false without."""
    names = {name.partition(":")[0] for name in align}
    return {"shared_transformer": "mst" in names, "prototypes": "turn" in names}
