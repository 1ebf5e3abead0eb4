"""The model: layers that split each modality's features into a general and a specific part.

Layer 1 reads the features, layer k >= 2 the specific features of layer k - 1 (paper, section
4.2 and eq. 2). Every layer quantizes its general features with a codebook that all
modalities share, and rebuilds its input from code and specific feature.

    features -> [Standardize] -> [TextFront] -> layer 1: general -> code, specific -> layer 2: ... -> codes

`layers: 0` keeps the general encoders and the codebook alone; 1 is DCID, 2 is H-DCID.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor, nn

from hdcid_cli.core.draws import sent
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.precision import unmixed
from hdcid_cli.models.decoders import MapDecoder, VectorDecoder
from hdcid_cli.models.encoders import (
    MAP_ENCODERS,
    GeneralEncoder,
    MapPooling,
    Prototypes,
    SpecificEncoder,
    Standardize,
    TextFront,
    make_transformer,
)
from hdcid_cli.models.quantizers import make_quantizer
from hdcid_cli.models.segments import Valid, alike
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.models.together import transformers

# (modality, features [B, T, ...], lengths [B]) -> quantized [B, T', K, C] and indices [B, T', K, S]
Encoding: TypeAlias = Callable[[str, Tensor, Tensor | None], tuple[Tensor, Tensor]]


@dataclass
class LayerOutput:
    """What one layer made of a batch; every field maps a modality to a tensor.

    inputs: what the layer read, and what its decoder should rebuild [B, T, ...].
    general: z, before quantization [B, T, D].
    codes, quantized, indices: of the quantizer, see `Quantized` [B, T, D], [B, T, width], [B, T, S].
    valid: which segments count [B, T]; None instead of the dictionary: all of them.
    observed: what single alignments look at besides, by their modules.
    specific: for the decoder, [B, T, S] or a map [B, T, H', W', S]; empty with `layers: 0`.
    summary: the specific feature as a vector, for CLUB and the next layer.
    """

    inputs: dict[str, Tensor]
    general: dict[str, Tensor] = field(default_factory=dict)
    codes: dict[str, Tensor] = field(default_factory=dict)
    quantized: dict[str, Tensor] = field(default_factory=dict)
    indices: dict[str, Tensor] = field(default_factory=dict)
    specific: dict[str, Tensor] = field(default_factory=dict)
    summary: dict[str, Tensor] = field(default_factory=dict)
    valid: Valid = None
    observed: dict[nn.Module, dict[str, Tensor]] = field(default_factory=dict)


class Layer(nn.Module):
    """General encoders, specific encoders, decoders and the codebook of one layer.

    Args:
        inputs: shape of one segment that each modality brings, a vector (C,) or a map (H, W, C).
        specific: width of the specific features of the modalities that are split.
    """

    def __init__(
        self, config: ModelSettings, inputs: dict[str, tuple[int, ...]], specific: dict[str, int], first: bool = True
    ):
        super().__init__()
        self.config = config
        self.standardize = nn.ModuleDict()
        if config.standardize and not first:  # CLUB has shrunk what the layer before hands on
            self.standardize.update({name: Standardize(shape[-1]) for name, shape in inputs.items()})
        self.pooling = nn.ModuleDict()
        self.general = nn.ModuleDict()
        self.specific = nn.ModuleDict()
        self.decoder = nn.ModuleDict()
        shared = None
        for name, shape in inputs.items():
            channels = shape[-1]
            if len(shape) == 3:
                self.pooling[name] = MapPooling(
                    channels, config.attention, config.spatial_attention, config.cell_hidden
                )
            self.general[name] = GeneralEncoder(
                channels, config.dim, config.transformer_layers, config.heads, config.feedforward, config.dropout
            )
            if config.shared_transformer:  # one module under every modality's name
                shared = shared or make_transformer(
                    config.dim, config.transformer_layers, config.heads, config.feedforward, config.dropout
                )
                self.general[name].transformer = shared
            if config.layers == 0 or name not in specific:
                continue
            if len(shape) == 3:
                self.specific[name] = MAP_ENCODERS[config.map_encoder](channels, *config.map_widths(channels))
                self.decoder[name] = MapDecoder(config.dim, channels, *config.map_widths(channels))
            else:
                self.specific[name] = SpecificEncoder(channels, specific[name])
                self.decoder[name] = VectorDecoder(config.dim, specific[name], channels)
        self.prototypes = Prototypes(config.codebook, config.dim) if config.prototypes else nn.Identity()
        self.quantizer = make_quantizer(config)
        self.narrow = nn.ModuleDict()  # decoders read D channels
        if self.quantizer.width != config.dim:
            self.narrow.update({name: nn.Linear(self.quantizer.width, config.dim) for name in self.decoder})

    def prepare(self, name: str, x: Tensor) -> Tensor:
        """What the encoders read and the decoder rebuilds: the input, in layers k >= 2 standardized."""
        return self.standardize[name](x) if name in self.standardize else x

    def encode_general(self, name: str, x: Tensor, padding: Tensor | None = None) -> Tensor:
        """General feature z of one modality's prepared input, [B, T, D]."""
        return self.prototypes(self.general[name](self._pooled(name, x), padding))

    def _pooled(self, name: str, x: Tensor) -> Tensor:
        return self.pooling[name](x) if name in self.pooling else x

    def encode_all(self, inputs: dict[str, Tensor], valid: Valid = None) -> dict[str, Tensor]:
        """General features of all modalities; those of as many segments go through their transformers together."""
        read = {name: self.general[name].input(self._pooled(name, x)) for name, x in inputs.items()}
        found: dict[str, Tensor] = {}
        for names, x in alike(read):
            padding = None if valid is None else ~torch.stack([valid[name] for name in names])
            z = transformers([self.general[name].transformer for name in names], x, padding)
            found |= zip(names, self.prototypes(z).unbind())
        return {name: found[name] for name in inputs}

    def encode_specific(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """Specific feature of one modality's prepared input, for the decoder, and its summary."""
        encoder = self.specific[name]
        return encoder(self.pooling[name].gated(x) if encoder.reads_gated else x)

    def forward(self, inputs: dict[str, Tensor], valid: Valid = None) -> LayerOutput:
        out = LayerOutput({name: self.prepare(name, x) for name, x in inputs.items()}, valid=valid)
        out.general = {name: full_precision(z) for name, z in self.encode_all(out.inputs, valid).items()}
        for name, x in out.inputs.items():
            if name in self.specific:
                out.specific[name], summary = self.encode_specific(name, x)
                out.summary[name] = full_precision(summary)
        self.quantize(out)
        return out

    def quantize(self, out: LayerOutput) -> None:
        """Replace general features by the codes that are nearest now."""
        device = next(iter(out.general.values())).device
        with unmixed(device):  # distances in bfloat16 tell few codes apart
            out.codes, out.quantized, out.indices = self.quantizer.quantize(out.general, out.valid)

    def aligned_by(self, names: Sequence[str]) -> Sequence[str]:
        """Those of the alignments asked for that concern this layer: all."""
        return names

    def disentangled_widths(self) -> dict[str, tuple[int, int]]:
        """Widths of what CLUB keeps apart, by the names of `disentangled`."""
        return {name: (self.quantizer.width, specific.summary_width) for name, specific in self.specific.items()}

    def disentangled(self, out: LayerOutput) -> dict[str, tuple[Tensor, Tensor, Tensor | None]]:
        """What CLUB keeps apart: {name: (shared feature, specific feature, which segments count)}."""
        valid = out.valid or {}
        return {name: (out.quantized[name], out.summary[name], valid.get(name)) for name in self.specific}

    def decode(self, out: LayerOutput) -> dict[str, Tensor]:
        """Rebuild the layer's inputs from quantized and specific features."""
        read = {name: self.narrow[name](x) if name in self.narrow else x for name, x in out.quantized.items()}
        return {name: decoder(read[name], out.specific[name]) for name, decoder in self.decoder.items()}


def full_precision(x: Tensor) -> Tensor:
    """Losses compare at least float32, whatever autocast computed with."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class HDCID(nn.Module):
    """The whole model; see the module's docstring.

    Feature tensors are [B, T, ...] in the shapes of `config.inputs`; T may differ between modalities.
    """

    def __init__(self, config: ModelSettings):
        super().__init__()
        if not config.inputs:
            raise InputError("A model needs at least one modality.")
        self.config = config
        shapes = dict(config.inputs)
        self.standardize = nn.ModuleDict()
        if config.standardize:
            self.standardize.update({name: Standardize(shape[-1]) for name, shape in shapes.items()})
        self.text_front = None
        if config.text_hidden and len(shapes.get("text", ())) == 1:
            self.text_front = TextFront(shapes["text"][0], config.text_hidden)
            shapes["text"] = (2 * config.text_hidden,)
        widths = {name: config.specific_width(name) for name in shapes}
        self.layers = nn.ModuleList()
        for number in range(config.levels):
            self.layers.append(Layer(config, shapes, widths, first=number == 0))
            # The next layer reads vectors: a map's summary has its C channels, a vector's specific feature its own
            # width.
            shapes = {name: (shape[-1] if len(shape) == 3 else widths[name],) for name, shape in shapes.items()}
            widths = {name: shape[0] for name, shape in shapes.items()}

    @property
    def code_layers(self) -> nn.ModuleList:
        """The layers that have codes, as tasks count them: all."""
        return self.layers

    @property
    def encodings(self) -> Mapping[str, Encoding]:
        """The ways to encode, some of ENCODINGS; retrieval takes the first unless told otherwise."""
        return {"seconds": self.encode}

    def front(self, features: dict[str, Tensor], lengths: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """What layer 1 reads: the features, standardized, text contextualised."""
        features = {name: features[name] for name in self.config.modalities if name in features}
        for name in self.standardize:
            if name in features:
                features[name] = self.standardize[name](features[name])
        if self.text_front is not None and "text" in features:
            features["text"] = self.text_front(features["text"], lengths and lengths["text"])
        return features

    def forward(
        self, features: dict[str, Tensor], active: int | None = None, lengths: dict[str, Tensor] | None = None
    ) -> list[LayerOutput]:
        """Run the first `active` layers (all if None); layers beyond are not computed at all (warm start).

        Args:
            features: {"video": [B, T, H, W, C], "audio": [B, T, C], ...}, any subset of the model's modalities.
            lengths: {modality: [B]}, on the CPU: how many segments are valid; all if None.
        """
        outputs, inputs = [], self.front(features, lengths)
        valid = lengths and {name: valid_segments(lengths[name], x) for name, x in inputs.items()}
        for layer in self.layers[:active]:
            outputs.append(layer(inputs, valid))
            inputs = outputs[-1].summary
        return outputs

    @torch.no_grad()
    def encode(self, name: str, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Codes of one modality for downstream tasks, without decoders.

        Args:
            lengths: [B] valid segments, on the CPU. They matter with `padding: mask` alone, where
                segments that are not valid get the code of the last one that is.

        Returns:
            quantized [B, T, K, D] and indices [B, T, K, S] over the K layers.
        """
        if self.config.padding == "repeat":
            lengths = None
        x = self.front({name: x}, lengths if lengths is None else {name: lengths})[name]
        padding = None if lengths is None else ~valid_segments(lengths, x)
        quantized, indices = [], []
        for number, layer in enumerate(self.layers):
            x = layer.prepare(name, x)
            code, index = layer.quantizer(layer.encode_general(name, x, padding), name)
            quantized.append(code)
            indices.append(index)
            if number + 1 < len(self.layers):
                x = layer.encode_specific(name, x)[1]
        return until_end(lengths, torch.stack(quantized, dim=2)), until_end(lengths, torch.stack(indices, dim=2))


def until_end(lengths: Tensor | None, x: Tensor) -> Tensor:
    """x [B, T, ...] with the last valid segment of each clip in the place of those after it; None: all are valid."""
    if lengths is None:
        return x
    steps = torch.minimum(torch.arange(x.shape[1]), lengths.unsqueeze(1) - 1).to(x.device)  # [B, T]
    return x[torch.arange(len(x), device=x.device).unsqueeze(1), steps]


def valid_segments(lengths: Tensor, x: Tensor) -> Tensor:
    """Lengths [B] on the CPU -> which segments of x [B, T, ...] are valid, [B, T] on its device."""
    return sent(torch.arange(x.shape[1]) < lengths.unsqueeze(1), x.device)
