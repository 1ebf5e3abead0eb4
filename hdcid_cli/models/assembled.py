"""The models that `--model` assembles: by name, as `ModelSettings.kind` says it, without importing torch to know them.

A model is a module with `config`, `layers` (what training goes through), `code_layers` (those that have codes),
`encode` and `encodings`; `hdcid.py` says what each of these does.
"""

from typing import TYPE_CHECKING, TypeAlias

from hdcid_cli.core.registry import Entry

if TYPE_CHECKING:
    from hdcid_cli.models.fcid import FCID
    from hdcid_cli.models.hdcid import HDCID
    from hdcid_cli.models.settings import ModelSettings

Model: TypeAlias = "HDCID | FCID"

# What has codes of its own, by the names of `Model.encodings`.
ENCODINGS = {"clips": "one code a clip", "seconds": "one code a second, or word"}

MODELS = {
    "hdcid": Entry("DCID, H-DCID and the baselines", "hdcid_cli.models.hdcid:HDCID"),
    "fcid": Entry("fine and coarse levels", "hdcid_cli.models.fcid:FCID"),
}


def build_model(settings: "ModelSettings") -> "Model":
    """The model that the settings describe, with random weights."""
    return MODELS[settings.kind].load()(settings)
