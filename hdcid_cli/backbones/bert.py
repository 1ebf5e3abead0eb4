"""BERT, the papers' text backbone: one vector [768] a word, from the last hidden states.

Devlin et al., "BERT: pre-training of deep bidirectional transformers" (NAACL 2019), through transformers; any
other text encoder there by its name. The encoder reads the whole text. A word's vector is the mean over its
sub-words; special tokens and punctuation are dropped; the first T words are kept.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from hdcid_cli.backbones.backbone import Backbone, Options
from hdcid_cli.backbones.network import place
from hdcid_cli.backbones.words import word_spans
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.hub import load_pretrained
from hdcid_cli.media.clips import MediaClip

# Texts are filled up to a multiple of this many tokens, and batches to their full size, so that
# the vectors of a text do not depend on which others it was computed with.
BUCKET = 32


def load(options: Options) -> Backbone:
    """The backbone for `options.model`: a local folder, or a name on the hub."""
    tokenizer, model = _load(options.model, options.allow_pickle)
    network = TextNetwork(tokenizer, model, options)
    return Backbone(
        name="bert" if options.model == Options.model else f"bert:{options.model}",
        modality="text",
        shape=(network.width,),
        prepare=_prepare,
        network=network,
        batch_size=network.batch_size,
        weights=network.digest,
    )


def _prepare(clip: MediaClip) -> Iterator[str]:
    if not word_spans(clip.source):
        raise InputError(f"The text of {clip.id!r} has no word.")
    yield clip.source


def _load(name: str, pickles: bool):
    def load(source, **where):
        config = AutoConfig.from_pretrained(source, **where)
        tokenizer = AutoTokenizer.from_pretrained(source, **where)
        safe = None if pickles else True
        return tokenizer, AutoModel.from_pretrained(source, config=config, use_safetensors=safe, **where)

    remedy = "give --model a folder that holds one, add --allow-pickle if it is pickled, or use --backbone hash"
    tokenizer, model = load_pretrained(name, load, "text encoder", remedy, pickles)
    if not tokenizer.is_fast:
        raise InputError(
            f"The text encoder {name} has no fast tokenizer, which alone tells words from sub-words: choose "
            "another --model."
        )
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    return tokenizer, getattr(model, "text_model", model)  # the text half of CLIP and its like


class TextNetwork:
    """A text encoder that gives one vector a word.

    Args:
        tokenizer: a fast one, which says where in the text each token stands.
        model: input ids and attention mask [n, tokens] -> `last_hidden_state` [n, tokens, width].
        options: device, precision and batch size.
    """

    def __init__(self, tokenizer, model, options: Options):
        self.digest = _digest(model)
        self.device = place(model, options)
        self.tokenizer, self.model = tokenizer, model
        self.batch_size = options.batch_size or (64 if self.device.type == "cuda" else 8)
        self.width = model.config.hidden_size
        positions = getattr(model.config, "max_position_embeddings", None) or 512
        self.limit = min(tokenizer.model_max_length, positions)

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """At most `batch_size` texts -> the vectors [words, width] float32 of each."""
        encoded = [
            self.tokenizer(text, truncation=True, max_length=self.limit, return_offsets_mapping=True) for text in texts
        ]
        buckets: dict[int, list[int]] = {}
        for number, tokens in enumerate(encoded):
            length = min(self.limit, -(-len(tokens["input_ids"]) // BUCKET) * BUCKET)
            buckets.setdefault(length, []).append(number)
        vectors: dict[int, np.ndarray] = {}
        for length, numbers in buckets.items():
            hidden = self._hidden([encoded[number]["input_ids"] for number in numbers], length)
            for number, states in zip(numbers, hidden, strict=False):  # rows beyond these are filling
                vectors[number] = _mean_by_word(states, encoded[number]["offset_mapping"], word_spans(texts[number]))
        return [vectors[number] for number in range(len(texts))]

    @torch.inference_mode()
    def _hidden(self, rows: list[list[int]], length: int) -> np.ndarray:
        """Token ids of some texts -> [batch_size, length, width]."""
        ids = torch.full((self.batch_size, length), self.tokenizer.pad_token_id or 0)
        mask = torch.zeros_like(ids)
        mask[:, 0] = 1  # attention over nothing would be NaN
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1
        output = self.model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device))
        return output.last_hidden_state.float().cpu().numpy()


def _mean_by_word(states: np.ndarray, offsets: list[tuple[int, int]], words: list[tuple[int, int]]) -> np.ndarray:
    """[tokens, width] -> [words, width]: the mean over the tokens that a word's characters belong to."""
    chosen = [[t for t, (a, b) in enumerate(offsets) if max(a, begin) < min(b, end)] for begin, end in words]
    return np.stack(
        [states[tokens].mean(axis=0) for tokens in chosen if tokens]
    )  # a truncated text loses its last words


def _digest(model) -> str:
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.float().numpy().tobytes())
    return f"sha256:{sha.hexdigest()}"
