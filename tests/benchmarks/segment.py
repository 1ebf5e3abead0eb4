"""What a training step of `segment` takes: python tests/benchmarks/segment.py [--batch-size 4] [--size 224] [--backbone
pvt_v2_b5]

The true sizes by default, random weights, ready tensors; seconds a step (the best of --steps after one to
warm up) and the largest memory, each measured in a process of its own. The peer has the published model's
structure in float32: TPAVI with the map of all pairs of pixels, every frame through fusion and head.
"""

import argparse
import multiprocessing
import resource
import time

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from hdcid_cli.core.device import resolve_device
from hdcid_cli.tasks.segmentation.backbones import layout_of, load_backbone
from hdcid_cli.tasks.segmentation.segmenter import Segmenter, SegmenterSettings
from hdcid_cli.tasks.segmentation.settings import SegmenterTrainSettings
from hdcid_cli.tasks.segmentation.tpavi import TPAVI
from hdcid_cli.tasks.segmentation.training import SegmenterTrainer

FRAMES, QUERY = 5, 512


def all_pairs(self: TPAVI, x: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """The same values as TPAVI.forward, computed as published."""
    clips, _, frames, height, width = x.shape
    asked = self.align(query).transpose(1, 2)[..., None, None].expand(-1, -1, -1, height, width)
    phi = torch.einsum("bcthw,dc->bdthw", asked, self.phi.weight) + self.phi.bias.view(-1, 1, 1, 1)
    theta, phi, g = (value.flatten(2) for value in (self.theta(x), phi, self.g(x)))
    pairs = theta.transpose(1, 2) @ phi / phi.shape[2]
    y = (pairs @ g.transpose(1, 2)).transpose(1, 2).reshape(clips, -1, frames, height, width)
    z = x + self.w_z(y)
    return self.norm(z.movedim(1, -1)).movedim(-1, 1)


class Peer(SegmenterTrainer):
    """A step as published."""

    def train_step(self, batch: dict, modality: str) -> None:
        self.model.train()
        logits = self.model(batch["pictures"], batch["queries"][modality])
        loss = binary_cross_entropy_with_logits(logits[:, :1], batch["masks"].float())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


def measure(kind: str, arguments: argparse.Namespace, answers) -> None:
    """Put (seconds a step, GB at most, parameters in millions) of one kind of step."""
    device = resolve_device(arguments.device)
    torch.manual_seed(0)
    backbone = load_backbone(arguments.backbone, random_weights=True)
    model = Segmenter(SegmenterSettings(layout_of(backbone), QUERY, arguments.width, arguments.size), backbone)
    settings = SegmenterTrainSettings(
        batch_size=arguments.batch_size, precision="float32" if kind == "published" else arguments.precision
    )
    if kind == "published":
        TPAVI.forward = all_pairs
    trainer = (Peer if kind == "published" else SegmenterTrainer)(model, settings, device)
    clips, size = arguments.batch_size, arguments.size
    batch = {
        "pictures": torch.randint(0, 256, (clips, FRAMES, size, size, 3), dtype=torch.uint8, device=device),
        "masks": torch.rand(clips, 1, size, size, device=device) > 0.5,
        "queries": {"audio": torch.randn(clips, FRAMES, QUERY, device=device)},
    }
    seconds = []
    for _ in range(arguments.steps + 1):
        started = time.perf_counter()
        trainer.train_step(batch, "audio")
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    used = (
        torch.cuda.max_memory_allocated()
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    answers.put(
        (min(seconds[1:] or seconds), used / 2**30, sum(parameter.numel() for parameter in model.parameters()) / 1e6)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="pvt_v2_b5")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="float32", choices=["float32", "bf16"])
    parser.add_argument(
        "--no-peer", action="store_true", help="leave the peer out: its maps take 8 GB a clip at the true sizes"
    )
    arguments = parser.parse_args()
    context, found = multiprocessing.get_context("spawn"), {}
    for kind in ["ours"] if arguments.no_peer else ["ours", "published"]:
        answers = context.SimpleQueue()
        process = context.Process(target=measure, args=(kind, arguments, answers))
        process.start()
        process.join()
        if process.exitcode:
            print(f"{kind:10} failed with status {process.exitcode}")
            continue
        found[kind] = answers.get()
        seconds, memory, millions = found[kind]
        print(
            f"{kind:10} {seconds:8.2f} s a step of {arguments.batch_size} clips, at most {memory:6.2f} GB, "
            f"{millions:.1f} million parameters",
            flush=True,
        )
    if len(found) == 2:
        print(
            f"ours is {found['published'][0] / found['ours'][0]:.1f} times as fast and takes "
            f"{found['ours'][1] / found['published'][1]:.2f} of the memory"
        )


if __name__ == "__main__":
    main()
