"""What a training step of `pretrain` takes: python tests/benchmarks/pretrain.py [--batch-size 4] [--device auto]

The published sizes (VGG19 maps, VGGish and BERT vectors, two layers, every term of the loss), random
features. The peer is the published loop: float64, six passes of the model, the library's convolutions.
Prints seconds a step of both, their ratio, and how near our rate comes to that of a plain matrix product.

    --profile       the operators that take the most time in our step
    --precision     of our step: float32, tf32 or bf16
    --loader DIR    also train `--steps` epochs on the feature files in DIR, with each way to keep them
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # the published loop stands beside the tests
from published_loop import PublishedLoop

from hdcid_cli.core.device import resolve_device
from hdcid_cli.models.convolution import Conv3x3, ConvTranspose3x3
from hdcid_cli.models.hdcid import HDCID
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.training.objective import Objective
from hdcid_cli.training.pretrain import Run, pretrain
from hdcid_cli.training.settings import ObjectiveSettings, PretrainSettings, TrainSettings
from hdcid_cli.training.speed import FlopCounter, matrix_rate
from hdcid_cli.training.trainer import Trainer

SEGMENTS, SHAPES = 10, {"audio": (128,), "video": (7, 7, 512), "text": (768,)}


def batch(size: int, device, dtype) -> dict[str, torch.Tensor]:
    return {name: torch.rand(size, SEGMENTS, *shape, device=device, dtype=dtype) for name, shape in SHAPES.items()}


def build(**objective) -> tuple[HDCID, Objective]:
    torch.manual_seed(0)
    model = HDCID(ModelSettings(inputs=SHAPES))
    return model, Objective(ObjectiveSettings(**objective), model)


def seconds(step, device: torch.device, repeats: int) -> float:
    """Seconds of one step, the best of some; the first, which warms up, does not count if there are more."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - start)
    return min(taken[1:] or taken)


def library_convolutions() -> None:
    """From here on convolve as the published model does, with the library's own kernels."""
    for kind in (Conv3x3, ConvTranspose3x3):
        kind.forward = kind.convolve


def loader_rates(folder: Path, size: int, steps: int, precision: str, device) -> None:
    """Samples a second of whole training runs on feature files, with the features in memory and without."""
    for cache in ("none", "ram", "device"):
        with tempfile.TemporaryDirectory() as output:
            settings = PretrainSettings.of(
                batch_size=size, precision=precision, epochs=steps, device=str(device), cache=cache, log_every=5
            )
            run = Run(tuple(SHAPES), folder, Path(output) / "run", settings)
            pretrain(run)
            records = [json.loads(line) for line in open(run.output / "metrics.jsonl")]
        print(f"from files, --cache {cache}: {max(record['samples_per_second'] for record in records):.1f} samples/s")


def measure_ours(arguments, device: torch.device) -> float:
    """Seconds of our step; prints its rate, and its costliest operators if asked."""
    size = arguments.batch_size
    rate = matrix_rate(device, arguments.precision, repeats=10)
    model, objective = build()
    trainer = Trainer(
        model, objective, TrainSettings(warmup=0, batch_size=size, epochs=5, precision=arguments.precision), 100, device
    )
    features = batch(size, device, torch.float32)
    trainer.step(features, 0)
    with FlopCounter() as counter:
        trainer.step(features, 0)
    flops = counter.get_total_flops()
    ours = seconds(lambda: trainer.step(features, 0), device, arguments.steps)
    print(f"ours: {ours:.3f} s a step, {size / ours:.1f} samples/s, {flops / 1e9:.0f} GFLOP a step")
    print(
        f"rate: {flops / ours / 1e9:.1f} GFLOP/s, {100 * flops / ours / rate:.0f} % of a matrix product's "
        f"{rate / 1e9:.1f}"
    )
    if arguments.profile:
        with torch.profiler.profile() as profile:
            trainer.step(features, 0)
        key = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
        print(profile.key_averages().table(sort_by=key, row_limit=8, max_name_column_width=40))
    return ours


def measure_published(arguments, device: torch.device) -> float:
    """Seconds of a step of the published loop."""
    library_convolutions()
    model, objective = build(align=("cpc",), club_weight=1.0, club_gradient="both", cpc_steps="random")
    loop = PublishedLoop(
        model.double().to(device).train(), objective.double().to(device), torch.Generator().manual_seed(0)
    )
    features = batch(arguments.batch_size, device, torch.float64)
    return seconds(lambda: loop.step(features), device, arguments.published_steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--published-steps", type=int, default=1)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--loader", type=Path)
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    print(f"device {device}, {torch.get_num_threads()} threads, batch {arguments.batch_size}, {arguments.precision}")
    ours = measure_ours(arguments, device)
    if arguments.loader:
        loader_rates(arguments.loader, arguments.batch_size, arguments.steps, arguments.precision, device)
    published = measure_published(arguments, device)
    print(f"published loop: {published:.2f} s a step; ours is {published / ours:.1f} times as fast")


if __name__ == "__main__":
    main()
