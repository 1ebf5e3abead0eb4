"""How fast a probe learns on codes, at the size of AVE, and what encoding again every epoch would cost.

    python tests/benchmarks/cmg.py [--epochs 50] [--full] [--device auto]

Prints the seconds of 50 epochs of `ave` on 3,339 clips (two layers of 256 channels, the most there
is), and the seconds of one pass of the encoder over the same clips, measured on a few batches.
`--full` uses the published VGG19 shape for the video encoder; otherwise audio is encoded.
Then retrieval of 10,000 x 10,000 clips by each similarity and by both, with the memory it takes.
"""

import argparse
import resource
import time

import numpy as np
import torch

from hdcid_cli.core.device import resolve_device
from hdcid_cli.models.hdcid import HDCID
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.tasks.cmg.probe import Samples, fit, new_probe, predict
from hdcid_cli.tasks.cmg.protocol import Schedule
from hdcid_cli.tasks.cmg.scores import CLASSIFICATION, Answers, Truth, value
from hdcid_cli.tasks.ranks import Owned, count_ranks, retrieval_scores
from hdcid_cli.tasks.retrieval import KINDS, code_vectors, summary_vectors, weights

CLIPS, VALIDATION, STEPS, CODES, DIM, LAYERS, CLASSES = 3339, 402, 10, 400, 256, 2, 28


def samples(clips: int, codebooks: list[torch.Tensor]) -> Samples:
    indices = torch.randint(0, CODES, (clips, STEPS, LAYERS))
    inputs = torch.cat([codebook[indices[..., layer]] for layer, codebook in enumerate(codebooks)], -1)
    names = [str(row) for row in range(clips)]
    return Samples(
        names,
        names,
        inputs,
        torch.randint(0, CLASSES, (clips,)),
        torch.ones(clips, STEPS, dtype=torch.bool),
    )


def probe_seconds(epochs: int, device) -> float:
    codebooks = [torch.randn(CODES, DIM) for _ in range(LAYERS)]
    learned, chosen = (samples(clips, codebooks).to(device) for clips in (CLIPS, VALIDATION))
    truth = Truth(chosen.labels.cpu().numpy(), chosen.valid.cpu().numpy(), CLASSES)
    probe, loss = new_probe(CLASSIFICATION, LAYERS * DIM, LAYERS * DIM, CLASSES, seed=0)
    start = time.perf_counter()
    fit(
        probe,
        loss,
        learned,
        Schedule(epochs=epochs),
        0,
        lambda each: value(CLASSIFICATION, "precision", Answers(predict(each, chosen), truth)),
    )
    return time.perf_counter() - start


def encoding_seconds(full: bool, device) -> float:
    """Seconds to encode all clips once, from a few batches of 80."""
    name, shape = ("video", (7, 7, 512)) if full else ("audio", (128,))
    model = HDCID(ModelSettings(inputs={name: shape})).to(device).eval()
    batch = torch.rand(80, STEPS, *shape, device=device)
    with torch.inference_mode():
        model.encode(name, batch)
        start = time.perf_counter()
        for _ in range(3):
            model.encode(name, batch)[1].cpu()
    return (time.perf_counter() - start) / 3 / 80 * (CLIPS + VALIDATION)


def retrieval_seconds(clips: int, device) -> float:
    random = np.random.default_rng(0)
    codebooks = [random.normal(size=(CODES, DIM)) for _ in range(LAYERS)]
    sides = []
    for _ in range(2):
        indices = random.integers(0, CODES, (clips, STEPS, LAYERS))
        quantized = np.concatenate(
            [codebook.astype(np.float32)[indices[:, :, layer]] for layer, codebook in enumerate(codebooks)], -1
        )
        sides.append((quantized, indices, np.full(clips, STEPS)))
    start = time.perf_counter()
    parts = {
        "summary": summary_vectors(*((quantized.__getitem__, length) for quantized, _, length in sides)),
        "codes": code_vectors(*((indices, length) for _, indices, length in sides), codebooks),
    }
    own = Owned.one_each(np.arange(clips), clips)
    for counts in count_ranks(list(parts.values()), [weights(kind, parts) for kind in KINDS], own, device):
        retrieval_scores(counts)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--clips", type=int, default=10000, help="of retrieval")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    torch.manual_seed(0)
    probe = probe_seconds(arguments.epochs, device)
    encoding = encoding_seconds(arguments.full, device)
    print(f"device {device}, {torch.get_num_threads()} threads")
    print(f"probe, {arguments.epochs} epochs of {CLIPS} clips: {probe:.1f} s")
    print(
        f"encoding the {'video' if arguments.full else 'audio'} once: {encoding:.1f} s; every epoch again: "
        f"{encoding * arguments.epochs:.0f} s"
    )
    print(f"ratio: {(encoding * arguments.epochs + probe) / (encoding + probe):.1f}")
    print(f"retrieval, {arguments.clips} x {arguments.clips}: {retrieval_seconds(arguments.clips, device):.1f} s")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
