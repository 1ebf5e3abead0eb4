"""What a model is made of. Stored in the checkpoint's `config.yaml`; everything else follows from it."""

from dataclasses import asdict, dataclass, field, fields

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.modalities import ORDER


@dataclass(frozen=True)
class ModelSettings:
    """Architecture of an H-DCID model; the defaults give the published sizes on the published features.

    Args:
        inputs: shape of one segment's features for each modality, {"video": (7, 7, 512), "audio": (128,), "text":
            (768,)}.
            Three numbers are a map (channel gate, spatial pooling, convolutions), one is a vector.
        layers: disentangling layers: 0 general encoders and codebook alone, 1 DCID, 2 H-DCID, and more.
        dim: width D of codes and general features.
        codebook: number L of codes in each layer.
        quantizer: "vq", "rvq:N" or "fsq[:levels]".
        transformer_layers, heads, feedforward, dropout: of the general encoders' transformers.
        spatial_attention: "sum" over the cells (what the published code computes) or "softmax" (what it intends).
        map_hidden, map_specific: channels of a map's specific encoder; by default 2 C and 4 C from 256 channels on
            (1024 and 2048 at C = 512, as published), and C below, where a hand-made map holds little to compress.
        attention: width of the spatial attention; by default C / 2.
        specific: width of the specific features of a vector modality, one number or one a modality.
        text_hidden: hidden size a direction of the text's LSTM; 0 leaves the LSTM out.
        shared_transformer: one transformer for all modalities (MST).
        standardize: bring every channel of the features to mean 0 and deviation 1 first (the published code does not).
        padding: what becomes of a clip's segments after its last valid one: "repeat" takes them as they are
            (published),
            "mask" keeps them out of everything.
    """

    inputs: dict = field(default_factory=dict)
    layers: int = 2
    dim: int = 256
    codebook: int = 400
    quantizer: str = "vq"
    transformer_layers: int = 2
    heads: int = 4
    feedforward: int = 1024
    dropout: float = 0.1
    spatial_attention: str = "sum"
    map_hidden: int | None = None
    map_specific: int | None = None
    attention: int | None = None
    specific: int | dict = 256
    text_hidden: int = 128
    shared_transformer: bool = False
    standardize: bool = True
    padding: str = "repeat"

    def __post_init__(self):
        if not self.inputs:
            raise InputError("A model needs at least one modality.")
        for name, shape in self.inputs.items():
            if name not in ORDER:
                raise InputError(f"There is no modality {name!r}.")
            if len(shape) not in (1, 3):
                raise InputError(
                    f"The {name} features of a segment should be a vector [C] or a map [H, W, C], not {tuple(shape)}."
                )
            if len(shape) == 3 and min(shape[:2]) < 5:
                raise InputError(
                    f"The {name} maps are {shape[0]} x {shape[1]}; the convolutions of the specific encoder need 5 "
                    "x 5 or more."
                )
        ordered = {name: tuple(int(n) for n in self.inputs[name]) for name in ORDER if name in self.inputs}
        object.__setattr__(self, "inputs", ordered)
        if self.layers < 0:
            raise InputError("--layers should be 0, 1, 2 or more.")
        if self.dim % self.heads:
            raise InputError(f"--dim {self.dim} should be divisible by the {self.heads} attention heads.")
        if self.spatial_attention not in ("sum", "softmax"):
            raise InputError(f"Spatial attention is `sum` or `softmax`, not {self.spatial_attention!r}.")
        if self.padding not in ("repeat", "mask"):
            raise InputError(f"Padding is `repeat` or `mask`, not {self.padding!r}.")

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities in the published order a, v, t."""
        return tuple(self.inputs)

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

    def to_dict(self) -> dict:
        """Plain values for YAML."""
        values = asdict(self)
        values["inputs"] = {name: list(shape) for name, shape in self.inputs.items()}
        return values

    @classmethod
    def from_dict(cls, values: dict) -> "ModelSettings":
        """The inverse of `to_dict`; unknown keys are an InputError."""
        unknown = set(values) - {item.name for item in fields(cls)}
        if unknown:
            raise InputError(f"The model's configuration has unknown keys: {', '.join(sorted(unknown))}.")
        return cls(**values)
