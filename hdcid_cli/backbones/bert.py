"""BERT, the papers' text backbone: one vector [768] a word, from the last hidden states.

Devlin et al., "BERT: pre-training of deep bidirectional transformers" (NAACL 2019), through transformers; with --model
any other text encoder there.
"""

from dataclasses import replace

from hdcid_cli.backbones import text
from hdcid_cli.backbones.backbone import Backbone, Options


def load(options: Options) -> Backbone:
    """The backbone for `options.model`, a folder or a name on the hub."""
    backbone = text.load(options)
    name = options.model.partition("@")[0]
    return replace(backbone, name=options.described("bert" if name == Options.model else f"bert:{name}"))
