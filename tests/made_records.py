"""Records that no experiment made, for tests of what is done with records."""

import json

from hdcid_cli.core.records import result

DATA = {"ave": "AVE", "avvp": "LLP", "ave2avvp": "AVE-AVVP", "ucf2vgg": "UCF-VGG", "segment": "AVSBench-S4"}


def record(**changes):
    """A result of the two-layer model on AVE, with `changes`; on the data of the papers for its task."""
    fields = dict(
        task="ave", train="v", test="a", metric="precision", value=44.0, n=40, chance=10.0, protocol="heldout"
    )
    fields |= dict(
        method="cpc,cmcm",
        layers=2,
        quantizer="vq",
        codebook=400,
        toc="none",
        checkpoint="sha256:aa",
        pretrain_seed=0,
        seed=0,
    )
    fields |= {"data": DATA.get(changes.get("task", "ave"), "own")}
    return result(**(fields | changes))


def lines(*records):
    """As they stand in a file."""
    return "".join(json.dumps(item) + "\n" for item in records)
