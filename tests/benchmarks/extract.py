"""How fast `extract` is: python tests/benchmarks/extract.py {network,pipe,adding,scale} [options]

network  VGG19 with random weights on films made here: what share of the time decoding and writing
         take, and the whole pipeline's rate against that of the bare network on ready tensors.
pipe     a network that costs next to nothing: decoding, memory, batches and writing against decoding alone.
adding   clips to a file that holds many: seconds until the first new one can be written.
scale    many tiny clips with a weight-free backbone: rate and memory at the beginning and at the end.
"""

import argparse
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from media_files import tone, write_media

from hdcid_cli.backbones import Options, load_backbone
from hdcid_cli.backbones.backbone import Backbone
from hdcid_cli.backbones.extraction import extract_clips
from hdcid_cli.core.features import FeatureFile, FeatureWriter
from hdcid_cli.media.clips import MediaClip
from hdcid_cli.media.video import video_parts
from hdcid_cli.media.workers import read_clips

ATTRIBUTES = {"modality": "video", "backbone": "vgg19", "weights": "random", "segment_seconds": 1.0}


def film(path: Path, seconds: float, height: int, width: int, fps: int) -> Path:
    """A film of coarse noise that moves, so that it is about as hard to decode as a real one."""
    noise = np.random.default_rng(0).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    picture = noise.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    return write_media(
        path,
        [np.roll(picture, 3 * number, axis=1) for number in range(int(seconds * fps))],
        fps=fps,
        sound=tone(440, seconds),
    )


def network(arguments, folder: Path) -> None:
    import torch

    from hdcid_cli.backbones.vgg19 import VGG19

    torch.manual_seed(0)
    torch.save(VGG19().state_dict(), folder / "vgg19.pth")
    path = film(folder / "film.mp4", arguments.seconds, 360, 640, 25)
    clips = [MediaClip(str(number), str(path)) for number in range(arguments.clips)]
    options = Options(
        seconds=arguments.seconds,
        weights=str(folder / "vgg19.pth"),
        device=arguments.device,
        precision=arguments.precision,
    )
    backbone = load_backbone("video", "vgg19", options)

    with Stopwatch() as decoding:
        parts = [part for _, part, _ in read_clips(clips[:1], backbone.prepare, 0) if part is not None]

    batch = (parts * backbone.batch_size)[: backbone.batch_size]
    batches = max(2, arguments.clips * arguments.seconds // backbone.batch_size)
    backbone.network(batch)  # warm
    with Stopwatch() as before:
        for _ in range(batches // 2):
            backbone.network(batch)

    shape = (arguments.seconds, *backbone.shape)
    with FeatureWriter(folder / "video.h5", [clip.id for clip in clips], shape, ATTRIBUTES) as writer:
        with Stopwatch() as whole:
            for _, error in extract_clips(clips, backbone, writer, arguments.seconds, arguments.workers):
                assert error is None, error
        with Stopwatch() as after:  # half before and half after: the machine may be in another mood by now
            for _ in range(batches - batches // 2):
                backbone.network(batch)
        features = np.zeros(shape, np.float16)
        with Stopwatch() as writing:
            for clip in clips:
                writer.write(clip.id, features, 1)
        writer.finish()

    seconds = arguments.clips * arguments.seconds
    print(
        f"device {backbone.network.device}, {arguments.workers} workers, {arguments.clips} clips of "
        f"{arguments.seconds} s, batches of {backbone.batch_size} s"
    )
    print(
        f"whole pipeline: {arguments.clips / whole.wall:.3g} clips/s; wall time is what counts on an idle machine, "
        "processor time on a busy one"
    )
    for name in ("wall", "processor"):
        bare = getattr(before, name) + getattr(after, name)
        spent, network = getattr(whole, name) / seconds, bare / (batches * backbone.batch_size)
        rest = getattr(decoding, name) / arguments.seconds + getattr(writing, name) / seconds
        print(
            f"{name + ' time':14}  a second of video takes {spent:.3f} s, bare network on ready tensors {network:.3f} "
            f"s, decoding and writing {rest:.3f} s"
        )
        print(
            f"{'':14}  pipeline / bare network {network / spent:.1%} (at least 95 %); decoding and writing "
            f"{rest / spent:.1%}"
        )


def pipe(arguments, folder: Path) -> None:
    import torch

    from hdcid_cli.backbones.network import Network

    class Cheap(torch.nn.Module):
        """Every 28th pixel, as a map of VGG19's size."""

        def __init__(self):
            super().__init__()
            self.one = torch.nn.Parameter(torch.ones(1))

        def forward(self, frames):
            return frames[:, 0, 14::32, 14::32, :1].to(self.one.dtype).expand(-1, 7, 7, 512)

    path = film(folder / "film.mp4", arguments.seconds, 360, 640, 25)
    clips = [MediaClip(str(number), str(path)) for number in range(arguments.clips)]
    prepare = partial(video_parts, seconds=arguments.seconds, fps=16, size=224)
    network = Network(Cheap(), Options(device=arguments.device), batch_on_cpu=1, batch_on_gpu=16, half=True)
    backbone = Backbone("vgg19", "video", (7, 7, 512), prepare, network, network.batch_size, "random")
    shares = []
    for turn in range(arguments.turns):
        with Stopwatch() as decoding:
            for _, _, error in read_clips(clips, prepare, arguments.workers):
                assert error is None, error
        path = folder / f"{turn}.h5"
        shape = (arguments.seconds, *backbone.shape)
        with FeatureWriter(path, [clip.id for clip in clips], shape, ATTRIBUTES) as writer, Stopwatch() as whole:
            for _, error in extract_clips(clips, backbone, writer, arguments.seconds, arguments.workers):
                assert error is None, error
        shares.append((decoding.wall / whole.wall, decoding.processor / whole.processor))
        print(
            f"decoding alone {arguments.clips / decoding.wall:.3g} clips/s, to the file "
            f"{arguments.clips / whole.wall:.3g} clips/s"
        )
    wall, processor = np.median(shares, axis=0)
    print(
        f"{arguments.workers} workers, clips of {arguments.seconds} s: decoding to writing / decoding alone {wall:.1%} "
        f"by the wall, {processor:.1%} by processor time (at least 85 %)"
    )


def adding(arguments, folder: Path) -> None:
    ids = [f"clip{number:07d}" for number in range(arguments.clips)]
    attributes, shape = {**ATTRIBUTES, "modality": "audio"}, (2, 8)  # 64 bytes a clip
    with FeatureWriter(folder / "audio.h5", ids, shape, attributes, "float32") as writer:
        for name in ids:
            writer.write(name, np.ones(shape, np.float32), 2)
        writer.finish()
    with Stopwatch() as watch:
        FeatureWriter(folder / "audio.h5", [*ids, "new"], shape, attributes, "float32").close()
    print(f"one clip more in a file of {arguments.clips:,}: {watch.wall:.3g} s")


class Stopwatch:
    """Seconds that a block took by the wall and by this process and its ended children on all cores."""

    def __enter__(self):
        self._wall, self._processor = time.perf_counter(), self._spent()
        return self

    def __exit__(self, *_):
        multiprocessing.active_children()  # takes account of those that have ended
        self.wall, self.processor = time.perf_counter() - self._wall, self._spent() - self._processor

    @staticmethod
    def _spent() -> float:
        both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in both)


def scale(arguments, folder: Path) -> None:
    sources = [
        write_media(
            folder / f"source{n}.mp4", np.full((8, 32, 32, 3), 20 * n, np.uint8), fps=8, sound=tone(300 + 50 * n, 1)
        )
        for n in range(10)
    ]
    (folder / "videos").mkdir()
    for number in range(arguments.clips):
        os.link(sources[number % 10], folder / "videos" / f"clip{number:06d}.mp4")
    command = [
        sys.executable,
        "-m",
        "hdcid_cli",
        "extract",
        "--modality",
        "audio",
        "--backbone",
        "logmel",
        "--workers",
        str(arguments.workers),
    ]
    process = subprocess.Popen(
        [*command, "-o", "audio.h5", "videos"], cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    points = []  # (time, clips done, MiB)
    while process.poll() is None:
        time.sleep(0.5)
        if (folder / "audio.h5.part").exists():
            points.append((time.perf_counter(), _done(folder / "audio.h5.part"), _memory(process.pid)))
    assert process.returncode == 0
    times, done, memory = np.array([point for point in points if point[1] > 0 and point[2] > 0]).T
    tenth = arguments.clips // 10
    for name, low, high in (("first", 0, tenth), ("last", arguments.clips - tenth, arguments.clips)):
        inside = (done >= low) & (done <= high)
        rate = np.ptp(done[inside]) / max(np.ptp(times[inside]), 1e-9)
        print(f"{name:5} tenth: {rate:7.1f} clips/s, {memory[inside].mean():7.1f} MiB with its workers")
    started = time.perf_counter()
    with FeatureFile([folder / "audio.h5"]) as file:
        print(f"opening the file of {len(file)} clips takes {time.perf_counter() - started:.3f} s")


def _done(path: Path) -> int:
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            return int(np.count_nonzero(file["length"][:]))
    except (OSError, KeyError):
        return 0


def _memory(pid: int) -> float:
    """Resident memory of a process and its children, MiB; what they share counts once a process."""
    total = 0.0
    for process in [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]:
        try:
            fields = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
            total += int(fields["VmRSS"].split()[0]) / 1024
        except (OSError, KeyError):
            pass  # it has ended
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["network", "pipe", "adding", "scale"])
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3, help="of pipe, of which the median counts")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        {"network": network, "pipe": pipe, "adding": adding, "scale": scale}[arguments.what](arguments, Path(folder))


if __name__ == "__main__":
    main()
