"""What a model is made of. Stored in the checkpoint's `config.yaml`; everything else follows from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.modalities import ORDER
from hdcid_cli.core.registry import listed
from hdcid_cli.core.settings import SHOWN, Settings, setting
from hdcid_cli.models.assembled import MODELS
from hdcid_cli.models.quantizers import QUANTIZERS
from hdcid_cli.models.quantizers.levels import MOST_CODES


@dataclass(frozen=True)
class ModelSettings(Settings):
    """Architecture of an H-DCID model; the published sizes follow on the published features.

    Args:
        inputs: shape of one segment's features for each modality, {"video": (7, 7, 512), "audio": (128,), "text":
            (768,)}; they come from the feature files. Three numbers are a map (channel gate, spatial pooling,
            convolutions), one is a vector.
        transformer_layers, heads, feedforward: of the general encoders' transformers.
        map_hidden, map_specific: channels of a map's specific encoder; by default 2 C and 4 C from 256 channels on
            (1024 and 2048 at C = 512, as published), and C below, where a hand-made map holds little to compress.
        attention: width of the spatial attention; by default C / 2.
        specific: width of the specific features of a vector modality, one number or one a modality.
        text_hidden: hidden size a direction of the text's LSTM; 0 leaves the LSTM out.
        shared_transformer: one transformer for all modalities (MST).
        prototypes: general features are attention over as many prototypes, shared by all modalities, as there are
            codes (TURN).
    """

    inputs: dict = field(default_factory=dict)
    kind: str = setting(
        "hdcid",
        f"What is assembled: {', '.join(f'{name} ({entry.summary})' for name, entry in MODELS.items())}.",
        choices=MODELS,
        option="--model",
    )
    layers: int = setting(2, "Disentangling layers: 0 none, 1 DCID, 2 H-DCID.", least=0, most=16)
    dim: int = setting(256, "Width of codes and general features.", least=1, most=1 << 14)
    codebook: int = setting(400, "Codes in each layer's codebook.", least=2, most=MOST_CODES)
    quantizer: str = setting("vq", f"{listed(QUANTIZERS)}.")
    own_weight: float | None = setting(
        None,
        "Of a modality's own features in the aligned quantizer's moving averages; 0.75 with two modalities, 0.6 with "
        "three, if not given.",
        least=0,
        most=1,
    )
    cascade: bool = setting(True, "Draw the aligned quantizer's blocks to their mean after each update.")
    transformer_layers: int = setting(
        None, "Layers of the general encoders; 2, and 1 in FCID.", optional=True, least=1, most=64, line=False
    )
    heads: int = setting(4, "Attention heads.", least=1, most=256, line=False)
    feedforward: int = setting(1024, "Inner width of a transformer layer.", least=1, most=1 << 16, line=False)
    dropout: float = setting(0.3, "In the general encoders.", least=0, most=1, published=0.1)
    spatial_attention: str = setting(
        "sum",
        "How cells of a map are weighed: all alike (what the published code computes), or softmax (what it intends).",
        choices=("sum", "softmax"),
    )
    cell_hidden: int = setting(
        0,
        "Units of a perceptron that reads each cell of a map before cells are added up; 0 for none, as published.",
        least=0,
        most=1 << 14,
    )
    map_encoder: str = setting(
        "residual",
        "Specific encoder of maps: DCID's, with a residual unit, or CoDAAR's, with batch norms.",
        choices=("residual", "bn"),
    )
    map_hidden: int | None = setting(None, "Hidden channels for maps.", least=1, most=1 << 14, line=False)
    map_specific: int | None = setting(None, "Specific channels for maps.", least=1, most=1 << 14, line=False)
    attention: int | None = setting(None, "Width of the spatial attention.", least=1, most=1 << 14, line=False)
    specific: int | dict = 256
    text_hidden: int = setting(128, "Of the text's LSTM.", least=0, most=1 << 14, line=False)
    shared_transformer: bool = setting(False, "One transformer for all modalities.", line=False)
    prototypes: bool = setting(False, "General features are attention over shared prototypes.", line=False)
    standardize: bool = setting(True, "Bring every feature channel to mean 0 and deviation 1.", published=False)
    padding: str = setting(
        "repeat",
        "Segments after a short clip's last: taken as they are (published), or kept out of everything.",
        choices=("repeat", "mask"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "inputs", _shapes(self.inputs))
        if self.kind == "fcid":
            self._check_fcid()
        if self.layers:
            self._check_maps()
        if self.transformer_layers is None:
            object.__setattr__(self, "transformer_layers", 1 if self.kind == "fcid" else 2)
        widths = self.specific.values() if isinstance(self.specific, dict) else (self.specific,)
        if not all(_is_width(width) for width in widths):
            raise InputError(f"specific should be a whole number, 1 or more, not {SHOWN.repr(self.specific)}.")
        if self.own_weight is not None and self.quantizer != "aligned":
            raise InputError("--own-weight goes with --quantizer aligned.")
        if self.map_encoder == "bn" and self.padding == "mask":
            raise InputError("--map-encoder bn normalizes over all segments: it does not go with --padding mask.")
        if self.dim % self.heads:
            raise InputError(f"--dim {self.dim} should be divisible by the {self.heads} attention heads.")

    def _check_fcid(self) -> None:
        """FCID has two levels and one layer of codes, and no LSTM for text; what does not fit is an InputError."""
        if self.layers not in (1, ModelSettings.layers):
            raise InputError("--model fcid has one layer of codes: leave --layers out.")
        if self.quantizer != "vq":
            raise InputError("--model fcid quantizes by vq alone: leave --quantizer out.")
        if self.prototypes:
            raise InputError("--align turn goes with --model hdcid alone.")
        object.__setattr__(self, "layers", 1)
        object.__setattr__(self, "text_hidden", 0)

    def _check_maps(self) -> None:
        """Specific encoders need 5 x 5 cells; fewer are an InputError."""
        for name, shape in self.inputs.items():
            if len(shape) == 3 and min(shape[:2]) < 5:
                raise InputError(
                    f"The {name} maps are {shape[0]} x {shape[1]}; the convolutions of the specific encoder need 5 "
                    "x 5 or more (--layers 0 has none)."
                )

    @property
    def method(self) -> str:
        """What the papers call a model of so many layers, for names: `flat`, `dcid`, `hdcid`, `hdcid3`."""
        if self.kind != "hdcid":
            return self.kind
        return {0: "flat", 1: "dcid", 2: "hdcid"}.get(self.layers, f"hdcid{self.layers}")

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities in the published order a, v, t."""
        return tuple(self.inputs)

    @property
    def reads_maps(self) -> bool:
        """Whether the features of a modality are maps."""
        return any(len(shape) == 3 for shape in self.inputs.values())

    @property
    def trained_layers(self) -> int:
        """How many layers training goes through: those that have codes, and FCID's fine level."""
        return self.levels + (self.kind == "fcid")

    @property
    def levels(self) -> int:
        """Number of layers that have general encoders and a codebook (one for `layers` 0 and 1)."""
        return max(1, self.layers)

    def map_widths(self, channels: int) -> tuple[int, int]:
        """Hidden and specific channels of the encoder and decoder of maps with `channels` channels."""
        many = channels >= 256
        return self.map_hidden or (2 * channels if many else channels), self.map_specific or (
            4 * channels if many else channels
        )

    def specific_width(self, modality: str) -> int:
        return self.specific[modality] if isinstance(self.specific, dict) else self.specific


def _shapes(inputs: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of the modalities' segments, in the published order; what cannot be one is an InputError."""
    if not isinstance(inputs, Mapping):
        raise InputError(f"inputs should say a shape for each modality, not {SHOWN.repr(inputs)}.")
    for name, shape in inputs.items():
        if name not in ORDER:
            raise InputError(f"There is no modality {SHOWN.repr(name)}.")
        if not isinstance(shape, (tuple, list)) or len(shape) not in (1, 3) or not all(map(_is_width, shape)):
            shown = tuple(shape) if isinstance(shape, (tuple, list)) else shape
            raise InputError(
                f"The {name} features of a segment should be a vector [C] or a map [H, W, C], not {SHOWN.repr(shown)}."
            )
    return {name: tuple(inputs[name]) for name in ORDER if name in inputs}


def _is_width(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= 1 << 16
