"""One part of gpu.sh: python tests/benchmarks/gpu.py PART [--tiny]

machine       what computes, and the rate of a large matrix product in every precision.
step          a training step of the published sizes, batch 80, in every precision, computed and recorded (`--graph`):
              clips and FLOP a second, their share of the machine's rate, milliseconds until Python was through with it,
              memory, and whether a step could be recorded.
convolutions  each 3 x 3 convolution of the model, forward and backward, by the library and as matrix products.
loader        clips a second from feature files to the device, kept in files, memory or there.
extract       VGG19 on frames that lie ready: clips and FLOP a second.
ranks         two processes on one device: seconds a step, against one process with the same batch.

Prints JSON Lines; what fails is an object with "error", and what comes after it is measured all the same. Without a GPU
sizes are tiny.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from hdcid_cli.backbones.vgg19 import VGG19
from hdcid_cli.core.distributed import World, join_world
from hdcid_cli.core.features import FeatureFile, FeatureWriter
from hdcid_cli.core.loading import ClipReader, batches_on
from hdcid_cli.core.precision import kernels, matmul_precision
from hdcid_cli.models.convolution import Conv3x3, ConvTranspose3x3
from hdcid_cli.models.hdcid import HDCID
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.training.captured import WARM_UP, CudaRecorder
from hdcid_cli.training.objective import Objective
from hdcid_cli.training.settings import PRECISIONS, ObjectiveSettings, TrainSettings
from hdcid_cli.training.speed import FlopCounter, matrix_rate
from hdcid_cli.training.trainer import Trainer

SEGMENTS = 10
PATIENCE = 39  # seconds for as many processes as are started together


class Sizes:
    """What is measured: the published sizes, or tiny ones."""

    def __init__(self, tiny: bool, device: torch.device):
        self.tiny, self.device = tiny, device
        self.batch, self.repeats = (4, 2) if tiny else (80, 20)
        self.inputs = {"audio": (16,), "video": (7, 7, 8), "text": (12,)}
        self.model = {"dim": 16, "codebook": 8, "text_hidden": 4, "feedforward": 16, "map_hidden": 8, "map_specific": 8}
        self.maps, self.clips, self.frames = self.batch * 2, 40, 2
        if not tiny:
            self.inputs, self.model = {"audio": (128,), "video": (7, 7, 512), "text": (768,)}, {}
            self.maps, self.clips, self.frames = self.batch * SEGMENTS, 4000, 256

    def trainer(self, precision: str, batch: int, world: World | None = None) -> Trainer:
        torch.manual_seed(0)
        model = HDCID(ModelSettings(inputs=self.inputs, **self.model))
        settings = TrainSettings(warmup=0, batch_size=batch, epochs=5, precision=precision)
        return Trainer(model, Objective(ObjectiveSettings(), model), settings, 100, self.device, world)

    def features(self, batch: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        shapes = self.inputs.items()
        return {name: torch.rand(batch, SEGMENTS, *shape, device=self.device, dtype=dtype) for name, shape in shapes}


def attempt(about: dict, measure: Callable[[], dict]) -> dict:
    """What is measured, with what it is of; where that fails, why. Either way its memory is free again."""
    try:
        return about | measure()
    except Exception as error:
        traceback.print_exc()
        return about | {"error": f"{type(error).__name__}: {error}".splitlines()[0][:400]}
    finally:
        gc.collect()  # a trainer and what it recorded hold each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device, repeats: int) -> tuple[float, float]:
    """Of one call, the mean of some: until it is done, and until Python was through with it."""
    work()
    wait(device)
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    asked = time.perf_counter() - start
    wait(device)
    return (time.perf_counter() - start) / repeats, asked / repeats


def machine(sizes: Sizes) -> Iterator[dict]:
    name = torch.cuda.get_device_name(sizes.device) if sizes.device.type == "cuda" else "cpu"
    found = {"device": name, "torch": torch.__version__, "cores": os.cpu_count()}
    yield attempt(found, lambda: {f"{precision}_flops": rate_of(sizes, precision) for precision in PRECISIONS})


def rate_of(sizes: Sizes, precision: str) -> float:
    with matmul_precision(precision):
        return matrix_rate(sizes.device, precision)


def step(sizes: Sizes) -> Iterator[dict]:
    for precision in ("bf16", "tf32", "float32"):
        for graph in (False, True):
            if graph and sizes.device.type != "cuda":
                yield {"precision": precision, "graph": graph, "error": "CUDA records steps, and there is no GPU"}
                continue
            yield attempt({"precision": precision, "graph": graph}, partial(step_of, sizes, precision, graph))


def step_of(sizes: Sizes, precision: str, graph: bool) -> dict:
    refused: list[str] = []
    trainer, features = sizes.trainer(precision, sizes.batch), sizes.features(sizes.batch, torch.float32)
    if graph:
        trainer.capture(CudaRecorder(sizes.device), refused.append)
    if sizes.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(sizes.device)
    trainer.step(features, 0)
    with FlopCounter() as counter:
        trainer.step(features, 0)
    for _ in range(WARM_UP):
        trainer.step(features, 0)
    took, asked = seconds(lambda: trainer.step(features, 0), sizes.device, sizes.repeats)
    speed = counter.get_total_flops() / took
    found = {"clips_per_second": sizes.batch / took, "milliseconds": 1000 * took, "host_milliseconds": 1000 * asked}
    found["flops"] = speed
    if not sizes.tiny:
        found["share_of_peak"] = speed / matrix_rate(sizes.device, precision)
    if sizes.device.type == "cuda":
        found["peak_gib"] = torch.cuda.max_memory_allocated(sizes.device) / 2**30
    return found | ({"refused": refused[0]} if refused else {})


def convolutions(sizes: Sizes) -> Iterator[dict]:
    """The model's, by their input's side and channels; bfloat16 on a GPU."""
    wide, narrow, top = (16, 8, 8) if sizes.tiny else (2048, 1024, 512)
    dim = 8 if sizes.tiny else 256
    modules = {
        "encoder.conv1": (7, Conv3x3(top, narrow)),
        "encoder.conv2": (5, Conv3x3(narrow, wide)),
        "encoder.residual": (3, Conv3x3(wide, wide, padding=1, bias=False)),
        "decoder.conv1": (3, ConvTranspose3x3(dim + wide, narrow)),
        "decoder.residual": (5, Conv3x3(narrow, narrow, padding=1, bias=False)),
        "decoder.conv2": (5, ConvTranspose3x3(narrow, top)),
    }
    dtype = torch.bfloat16 if sizes.device.type == "cuda" else torch.float32
    for name, (side, module) in modules.items():
        module = module.to(sizes.device, dtype)
        x = torch.rand(sizes.maps, side, side, module.weight.shape[_reads(module)], device=sizes.device, dtype=dtype)
        x.requires_grad_()
        yield attempt({"layer": name}, partial(forms_of, sizes, module, x))


def forms_of(sizes: Sizes, module: Conv3x3 | ConvTranspose3x3, x: torch.Tensor) -> dict:
    found = {}
    for form, compute in (("library", module.convolve), ("product", module.multiply)):
        for what, work in (("forward", partial(compute, x)), ("both", partial(_backward, module, compute, x))):
            found[f"{form}_{what}_ms"] = 1000 * seconds(work, sizes.device, sizes.repeats)[0]
    return found


def _backward(module: torch.nn.Module, compute: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> None:
    made = compute(x)
    torch.autograd.grad(made, [x, *module.parameters()], torch.ones_like(made))


def _reads(module: Conv3x3 | ConvTranspose3x3) -> int:
    return 3 if isinstance(module, Conv3x3) else 0


def loader(sizes: Sizes) -> Iterator[dict]:
    names = [f"clip{number:06d}" for number in range(sizes.clips)]
    batches = [batch for _ in range(2) for batch in np.random.default_rng(0).permutation(sizes.clips).reshape(-1, 4)]
    if not sizes.tiny:
        batches = list(np.random.default_rng(0).permutation(sizes.clips).reshape(-1, sizes.batch))
    with tempfile.TemporaryDirectory() as folder:
        path, shape = Path(folder) / "video.h5", (SEGMENTS, *sizes.inputs["video"])
        noise = np.random.default_rng(0).random((16, *shape)).astype(np.float16)
        about = {"modality": "video", "backbone": "noise", "weights": "none", "segment_seconds": 1.0}
        with FeatureWriter(str(path), names, shape, about, "float16") as writer:
            for number, name in enumerate(names):
                writer.write(name, noise[number % 16], SEGMENTS)
            writer.finish()
        for cache in ("none", "ram", "device"):
            yield attempt({"cache": cache}, partial(loaded, sizes, path, names, batches, cache))


def loaded(sizes: Sizes, path: Path, names: list[str], batches: list[np.ndarray], cache: str) -> dict:
    with FeatureFile([str(path)]) as file:
        start = time.perf_counter()
        reader = ClipReader({"video": file}, names, cache, sizes.device)
        kept = time.perf_counter() - start
        start = time.perf_counter()
        for _ in batches_on(sizes.device, reader, batches, torch.float32):
            pass
        wait(sizes.device)
        rate = sum(map(len, batches)) / (time.perf_counter() - start)
    return {"clips_per_second": rate, "seconds_to_keep": kept}


def extract(sizes: Sizes) -> Iterator[dict]:
    side, mixed = (64, False) if sizes.tiny else (224, sizes.device.type == "cuda")
    network = VGG19().eval().to(sizes.device)
    shape = (max(1, sizes.frames // 16), min(16, sizes.frames), side, side, 3)
    frames = torch.randint(0, 255, shape, dtype=torch.uint8, device=sizes.device)
    with torch.inference_mode(), torch.autocast(sizes.device.type, torch.bfloat16, enabled=mixed):
        with FlopCounter() as counter:
            network(frames)
        took, _ = seconds(lambda: network(frames), sizes.device, max(1, sizes.repeats // 4))
    # A clip is ten seconds of sixteen frames.
    yield {"clips_per_second": sizes.frames / 160 / took, "flops": counter.get_total_flops() / took}


def ranks(sizes: Sizes) -> Iterator[dict]:
    for processes in (1, 2):
        program = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        program += [__file__, "rank", *(["--tiny"] if sizes.tiny else [])]
        yield attempt({"processes": processes}, partial(started, program))


def started(program: list[str]) -> dict:
    done = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {"error": done.stderr.strip()[-400:]}


def rank(sizes: Sizes) -> Iterator[dict]:
    """What `ranks` starts. NCCL wants a GPU for each process; gloo takes one for both, through the host."""
    if int(os.environ["WORLD_SIZE"]) > 1:
        dist.init_process_group("gloo")
    world = join_world(sizes.device)
    trainer = sizes.trainer("bf16" if sizes.device.type == "cuda" else "float32", sizes.batch, world)
    features = sizes.features(sizes.batch // world.size, torch.float32)
    trainer.step(features, 0)
    took, _ = seconds(lambda: trainer.step(features, 0), sizes.device, max(2, sizes.repeats // 4))
    if world.is_main:
        yield {"part": "ranks", "processes": world.size, "seconds": took, "clips_per_second": sizes.batch / took}
    world.close()


PARTS = {each.__name__: each for each in (machine, step, convolutions, loader, extract, ranks, rank)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    sizes = Sizes(arguments.tiny or device.type != "cuda", device)
    with kernels(deterministic=False):
        for found in results(arguments.part, sizes):
            print(json.dumps({"part": arguments.part, "tiny": sizes.tiny, **found}), flush=True)


def results(part: str, sizes: Sizes) -> Iterator[dict]:
    """What a part finds, and why it found no more."""
    try:
        yield from PARTS[part](sizes)
    except Exception as error:
        if part == "rank":  # whose end ends the others
            raise
        traceback.print_exc()
        yield {"error": f"{type(error).__name__}: {error}".splitlines()[0][:400]}


if __name__ == "__main__":
    main()
