"""Weak scaling of a training step: python tests/benchmarks/scaling.py [--processes 1,2,4] [--batch-size 4]

As many processes under `torchrun`, on this machine's processors through gloo, with `--batch-size` clips each: the more
there are, the larger is the batch of all. Of each number of them: seconds of processor time that one takes for a step,
the messages that it sends for it and their size. They may take turns on few cores, so time on the clock says nothing.
Every process compares all clips of the batch, so what grows is the losses; the networks see its own clips alone.

Sizes are the published ones, but for the channels of the video's maps with `--channels`; features are random.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import torch
import torch.distributed as dist

from hdcid_cli.core.distributed import join_world
from hdcid_cli.models.hdcid import HDCID
from hdcid_cli.models.settings import ModelSettings
from hdcid_cli.training.objective import Objective
from hdcid_cli.training.settings import ObjectiveSettings, TrainSettings
from hdcid_cli.training.trainer import Trainer

SEGMENTS = 10


def count_messages() -> Counter[str]:
    """What this process hands to the others from here on."""
    sent: Counter[str] = Counter()

    def counted(send, place):
        def counting(*arguments, **keywords):
            sent.update(messages=1, bytes=arguments[place].nbytes)
            return send(*arguments, **keywords)

        return counting

    dist.all_gather, dist.all_reduce = counted(dist.all_gather, 1), counted(dist.all_reduce, 0)
    return sent


def one(clips: int, channels: int, steps: int) -> dict:
    """Of this process."""
    torch.set_num_threads(1)
    world = join_world(torch.device("cpu"))
    torch.manual_seed(0)
    shapes = {"audio": (128,), "video": (7, 7, channels), "text": (768,)}
    model = HDCID(ModelSettings(inputs=shapes))
    settings = TrainSettings(warmup=0, batch_size=clips * world.size, epochs=5)
    trainer = Trainer(model, Objective(ObjectiveSettings(), model), settings, 100, "cpu", world)
    torch.manual_seed(world.rank)
    features = {name: torch.rand(clips, SEGMENTS, *shape) for name, shape in shapes.items()}
    for _ in range(2):  # the second sends gradients in the order of the first
        trainer.step(features, 0)
    sent, start = count_messages(), time.process_time()
    for _ in range(steps):
        trainer.step(features, 0)
    taken = (time.process_time() - start) / steps
    found = {"processes": world.size, "parameters": sum(p.numel() for p in model.parameters())}
    found |= {"processor_seconds": sum(world.collect(taken)) / world.size}
    found |= {"messages": sent["messages"] / steps, "megabytes": sent["bytes"] / steps / 1e6}
    world.close()
    return found | {"main": world.is_main}


def started(processes: int, arguments: argparse.Namespace) -> dict:
    """The same of the first of so many processes."""
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    options = ["batch_size", "channels", "steps"]
    chosen = [f"--{name.replace('_', '-')}={getattr(arguments, name)}" for name in options]
    done = subprocess.run([*program, str(Path(__file__).resolve()), "--one", *chosen], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{processes} processes failed:\n{done.stderr}")
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", default="1,2,4")
    parser.add_argument("--batch-size", type=int, default=4, help="clips of each process")
    parser.add_argument("--channels", type=int, default=512, help="of the video's maps")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        found = one(arguments.batch_size, arguments.channels, arguments.steps)
        if found.pop("main"):
            print(json.dumps(found), flush=True)
        return
    for processes in map(int, arguments.processes.split(",")):
        print(json.dumps(started(processes, arguments)), flush=True)


if __name__ == "__main__":
    main()
