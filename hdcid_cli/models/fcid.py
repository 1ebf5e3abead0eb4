"""FCID: fine and coarse disentangling (Huang et al. 2024, https://arxiv.org/abs/2403.05168).

Audio and video share a time axis and are aligned second by second; text is aligned with the clip as a whole. Each level
splits what modalities share from what is their own, and codes exist on the coarse level alone:

    features -> fine level: general f_m [T], specific -> mean over time -> coarse level: general g_m -> code, specific

Nothing is detached between the levels: what the coarse level learns trains the fine encoders. The levels are layers to
training (`hdcid.py` says what a layer does); to tasks there is one layer of codes.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.precision import unmixed
from hdcid_cli.models.decoders import VectorDecoder
from hdcid_cli.models.encoders import SpecificEncoder, Standardize
from hdcid_cli.models.hdcid import Encoding, Layer, LayerOutput, full_precision, until_end, valid_segments
from hdcid_cli.models.quantizers import make_quantizer
from hdcid_cli.models.quantizers.unquantized import Unquantized
from hdcid_cli.models.segments import Valid, time_mean
from hdcid_cli.models.settings import ModelSettings

# The order in which the released code hands the modalities to the moving averages (DCID's is audio, video, text).
COARSE_ORDER = ("video", "audio", "text")
TIMED = ("audio", "video")


def is_timed(alignment: str) -> bool:
    """Whether an alignment compares segments of one time, as `cpc` or `cpc:av` does."""
    return alignment.partition(":")[0] == "cpc"


class FineLevel(Layer):
    """General features of every segment; audio and video are split into general and specific ones, and rebuilt.

    Nothing is quantized here: the general features stand in the codes' place.
    """

    def __init__(self, config: ModelSettings):
        super().__init__(config, config.inputs, {name: config.specific_width(name) for name in TIMED})
        self.quantizer = Unquantized(config.dim)

    def aligned_by(self, names: Sequence[str]) -> Sequence[str]:
        """What compares seconds: CPC."""
        return [name for name in names if is_timed(name)]


class CoarseLevel(nn.Module):
    """One general feature a clip and its code, of what `compress` makes of the fine level's; [B, 1, D] throughout.

    Video and audio share compression and encoders, text has its own; each modality has a decoder.
    """

    def __init__(self, config: ModelSettings):
        super().__init__()
        self.config = config
        self.standardize = nn.ModuleDict()
        self.compression, self.general = nn.ModuleDict(), nn.ModuleDict()
        self.specific, self.decoder = nn.ModuleDict(), nn.ModuleDict()
        timed = self._encoders(config.dim)
        own = self._encoders(config.dim)
        for name in COARSE_ORDER:
            if name in config.inputs:
                encoders = timed if name in TIMED else own
                self.compression[name], self.general[name], self.specific[name] = encoders
                self.decoder[name] = VectorDecoder(config.dim, config.dim, config.dim)
        self.quantizer = make_quantizer(config)

    @staticmethod
    def _encoders(dim: int) -> tuple[nn.Module, nn.Module, nn.Module]:
        return nn.Linear(dim, dim), nn.Sequential(nn.Linear(dim, dim), nn.ReLU()), SpecificEncoder(dim, dim)

    def compress(self, name: str, fine: Tensor, valid: Tensor | None = None) -> Tensor:
        """c = Linear(mean over time of f): [B, T, D] -> [B, 1, D]."""
        return self.compression[name](time_mean(fine, valid)).unsqueeze(1)

    def forward(self, fine: dict[str, Tensor], valid: Valid = None) -> LayerOutput:
        """
        Args:
            fine: the fine level's general features, [B, T_m, D].
            valid: which of their segments count.
        """
        names = [name for name in COARSE_ORDER if name in fine]
        out = LayerOutput({name: self.compress(name, fine[name], valid and valid[name]) for name in names})
        for name, x in out.inputs.items():
            out.general[name] = full_precision(self.general[name](x))
            out.specific[name], summary = self.specific[name](x)
            out.summary[name] = full_precision(summary)
        self.quantize(out)
        return out

    def aligned_by(self, names: Sequence[str]) -> Sequence[str]:
        """What compares clips: all but CPC."""
        return [name for name in names if not is_timed(name)]

    def disentangled_widths(self) -> dict[str, tuple[int, int]]:
        """As `disentangled` names them."""
        return {name: (self.config.dim, self.config.dim) for name in ("text", "audio_video")}

    def disentangled(self, out: LayerOutput) -> dict[str, tuple[Tensor, Tensor, Tensor | None]]:
        """Features before quantization; video and audio, which share encoders, stacked along the batch [2 B, 1, D]."""
        shared, own = (torch.cat([of["video"], of["audio"]]) for of in (out.general, out.summary))
        return {"text": (out.general["text"], out.summary["text"], None), "audio_video": (shared, own, None)}

    def quantize(self, out: LayerOutput) -> None:
        """Replace general features by the codes that are nearest now."""
        device = next(iter(out.general.values())).device
        with unmixed(device):
            out.codes, out.quantized, out.indices = self.quantizer.quantize(out.general)

    def decode(self, out: LayerOutput) -> dict[str, Tensor]:
        """Rebuild what was compressed from codes and specific features."""
        return {name: self.decoder[name](out.quantized[name], out.specific[name]) for name in out.specific}


class FCID(nn.Module):
    """The whole model, of audio, video and text; CPC takes audio and video at their common length."""

    def __init__(self, config: ModelSettings):
        super().__init__()
        if set(config.inputs) != {"audio", "video", "text"}:
            raise InputError("--model fcid learns from audio, video and text together: --modalities avt.")
        if len(config.inputs["text"]) == 3:
            raise InputError("--model fcid takes texts as vectors, one a word.")
        self.config = config
        self.standardize = nn.ModuleDict()
        if config.standardize:
            self.standardize.update({name: Standardize(shape[-1]) for name, shape in config.inputs.items()})
        self.layers = nn.ModuleList([FineLevel(config), CoarseLevel(config)])

    @property
    def code_layers(self) -> nn.ModuleList:
        """The layers that have codes, as tasks count them."""
        return self.layers[1:]

    @property
    def encodings(self) -> Mapping[str, Encoding]:
        """The ways to encode; retrieval takes clips, which is what the codes were trained on."""
        return {"clips": self.encode_clips, "seconds": self.encode}

    def front(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the fine level reads: the features, standardized."""
        known = {name: features[name] for name in self.config.modalities if name in features}
        return {name: self.standardize[name](x) if name in self.standardize else x for name, x in known.items()}

    def forward(
        self, features: dict[str, Tensor], active: int | None = None, lengths: dict[str, Tensor] | None = None
    ) -> list[LayerOutput]:
        """Both levels' outputs, or the fine one's alone with `active` 1.

        Args:
            features: {"video": [B, T, H, W, C], "audio": [B, T, C], "text": [B, words, C]}.
            lengths: {modality: [B]}, on the CPU: how many segments are valid; all if None.
        """
        inputs = self.front(features)
        valid = lengths and {name: valid_segments(lengths[name], x) for name, x in inputs.items()}
        outputs = [self.layers[0](inputs, valid)]
        if active != 1:
            outputs.append(self.layers[1](outputs[0].general, valid))
        return outputs

    @torch.no_grad()
    def encode(self, name: str, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Codes of every segment: each goes alone through the coarse level, after the fine one has seen the whole clip.

        Args:
            lengths: [B] valid segments, on the CPU. They matter with `padding: mask` alone, where segments that are not
                valid get the code of the last one that is.

        Returns:
            quantized [B, T, 1, D] and indices [B, T, 1, 1].
        """
        fine, _ = self._fine(name, x, lengths)
        coarse = self.layers[1]
        code, index = coarse.quantizer(coarse.general[name](coarse.compression[name](fine)), name)
        lengths = None if self.config.padding == "repeat" else lengths
        return until_end(lengths, code.unsqueeze(2)), until_end(lengths, index.unsqueeze(2))

    @torch.no_grad()
    def encode_clips(self, name: str, x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One code a clip, as it was trained: quantized [B, 1, 1, D] and indices [B, 1, 1, 1]."""
        fine, valid = self._fine(name, x, lengths)
        coarse = self.layers[1]
        code, index = coarse.quantizer(coarse.general[name](coarse.compress(name, fine, valid)), name)
        return code.unsqueeze(2), index.unsqueeze(2)

    def _fine(self, name: str, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x = self.front({name: x})[name]
        valid = None if lengths is None or self.config.padding == "repeat" else valid_segments(lengths, x)
        return self.layers[0].encode_general(name, x, None if valid is None else ~valid), valid
