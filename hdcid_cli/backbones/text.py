"""Any text encoder that transformers loads: a vector a word, or one a text.

Words: the encoder reads the whole text; a word's vector is the mean over its sub-words, special tokens and punctuation
are dropped, the first T words are kept. Mean: over all tokens, special ones too, as sentence encoders do. The summary
(`--pool cls`): of a paired model (CLIP, SigLIP, CLAP) its embedding beside pictures or sounds, else the first token.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer

from hdcid_cli.backbones.backbone import Backbone, Options
from hdcid_cli.backbones.encoder import Encoder, open_encoder
from hdcid_cli.backbones.network import place, probe
from hdcid_cli.backbones.words import word_spans
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.hub import load_pretrained
from hdcid_cli.media.clips import MediaClip

# Texts are filled up to a multiple of this many tokens, and batches to their full size, so that
# the vectors of a text do not depend on which others it was computed with.
BUCKET = 32
REMEDY = "name a text encoder that transformers saved, add --allow-pickle if it is pickled, or use --backbone hash"
UNLIMITED = 512  # tokens, where neither tokenizer nor encoder names a limit


def load(options: Options) -> Backbone:
    """The backbone for `options.model`, a folder or a name on the hub."""
    if options.pool not in (None, "words", "mean", "cls"):
        raise InputError(f"Text features are words, their mean or a summary, not --pool {options.pool}.")
    if options.prompt is not None and "{}" not in options.prompt:
        raise InputError(f"--prompt {options.prompt!r} should say where the text goes, as in 'a photo of a {{}}'.")
    encoder = open_encoder("text", options, REMEDY)

    def tokenizer_of(folder: str, **where) -> Any:
        return AutoTokenizer.from_pretrained(folder, **where)

    tokenizer = load_pretrained(encoder.snapshot, tokenizer_of, "text encoder", REMEDY)
    network = TextNetwork(encoder, tokenizer, options)
    return Backbone(
        name=options.described(encoder.snapshot.name),
        modality="text",
        shape=(network.width,),
        prepare=partial(_prepare, prompt=options.prompt or "{}"),
        network=network,
        batch_size=network.batch_size,
        weights=encoder.digest,
        revision=encoder.snapshot.revision,
    )


def _prepare(clip: MediaClip, prompt: str) -> Iterator[str]:
    if not word_spans(clip.source):
        raise InputError(f"The text of {clip.id!r} has no word.")
    yield prompt.replace("{}", clip.source)


class TextNetwork:
    """Texts to vectors, [words, width] or [1, width] each.

    Args:
        encoder: of text.
        tokenizer: its tokenizer; a fast one, which says where in the text each token stands, if words are wanted.
        options: device, precision, batch size, layer and pooling.
    """

    def __init__(self, encoder: Encoder, tokenizer: Any, options: Options):
        self.encoder, self.tokenizer = encoder, tokenizer
        self.layer, self.pool = options.layer, options.pool or "words"
        if self.pool == "words" and not tokenizer.is_fast:
            raise InputError(
                f"The text encoder {encoder.snapshot.name} has no fast tokenizer, which alone tells words from "
                "sub-words: use --pool mean, or choose another."
            )
        self.limit, self.step = _lengths(encoder, tokenizer)
        self.device = place(encoder.module, options)
        self.batch_size = options.batch_size or (64 if self.device.type == "cuda" else 8)
        ids = tokenizer("a")["input_ids"]
        self.width = probe(lambda: self._pooled([ids], self._length(ids)), encoder.snapshot.name)[-1]

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """At most `batch_size` texts -> the vectors [words, width] or [1, width] float32 of each."""
        tokenize = partial(self.tokenizer, truncation=True, max_length=self.limit)
        encoded = [tokenize(text, return_offsets_mapping=self.pool == "words") for text in texts]
        buckets: dict[int, list[int]] = {}
        for number, tokens in enumerate(encoded):
            buckets.setdefault(self._length(tokens["input_ids"]), []).append(number)
        vectors: dict[int, np.ndarray] = {}
        for length, numbers in buckets.items():
            pooled = self._pooled([encoded[number]["input_ids"] for number in numbers], length).float().cpu().numpy()
            for number, found in zip(numbers, pooled, strict=False):  # rows beyond these are filling
                if self.pool == "words":
                    vectors[number] = _mean_by_word(found, encoded[number]["offset_mapping"], word_spans(texts[number]))
                else:
                    vectors[number] = found[None]
        return [vectors[number] for number in range(len(texts))]

    def _length(self, ids: list[int]) -> int:
        return min(self.limit, -(-len(ids) // self.step) * self.step)

    @torch.inference_mode()
    def _pooled(self, rows: list[list[int]], length: int) -> Tensor:
        """Token ids of some texts -> [batch_size, width], or [batch_size, length, width] for words."""
        ids = torch.full((self.batch_size, length), self.tokenizer.pad_token_id or 0)
        mask = torch.zeros_like(ids)
        mask[:, 0] = 1  # attention over nothing would be NaN
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1
        mask = mask.to(self.device)
        inputs = {"input_ids": ids.to(self.device)}
        if not _is_siglip(self.encoder):  # which learned from filled texts, without a mask
            inputs["attention_mask"] = mask
        if self.pool == "cls" and self.encoder.joint is not None:
            return self.encoder.joint(**inputs)
        states = self.encoder.hidden(self.layer, **inputs)
        if self.pool == "words":
            return states
        if self.pool == "cls":
            return states[:, 0]
        return (states.float() * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def _is_siglip(encoder: Encoder) -> bool:
    return encoder.config.model_type.startswith("siglip")


def _lengths(encoder: Encoder, tokenizer: Any) -> tuple[int, int]:
    """How many tokens a text may have, and of how many its length is made a multiple."""
    positions = getattr(encoder.config, "max_position_embeddings", None) or UNLIMITED
    # RoBERTa and its like count positions from behind their filling's number.
    embeddings = getattr(encoder.half, "embeddings", None)
    if (padding := getattr(embeddings, "padding_idx", None)) is not None:
        positions -= padding + 1
    limit = min(tokenizer.model_max_length, positions)
    return limit, limit if _is_siglip(encoder) else BUCKET


def _mean_by_word(states: np.ndarray, offsets: list[tuple[int, int]], words: list[tuple[int, int]]) -> np.ndarray:
    """[tokens, width] -> [words, width]: the mean over the tokens that a word's characters belong to."""
    chosen = [[t for t, (a, b) in enumerate(offsets) if max(a, begin) < min(b, end)] for begin, end in words]
    return np.stack(
        [states[tokens].mean(axis=0) for tokens in chosen if tokens]
    )  # a truncated text loses its last words
