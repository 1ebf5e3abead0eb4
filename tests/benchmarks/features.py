"""How fast feature files are: python tests/benchmarks/features.py {read,grow,open} [options]

read  random batches of large clips: HDF5 and np.isfinite, clip by clip, against FeatureFile.read.
grow  clips added to a file of many small rows: HDF5, row by row, against FeatureWriter.
open  time and memory of opening a file of many clips, of its digest, its first batch and `info --quick`.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from hdcid_cli.core.features import FeatureFile, FeatureWriter

ATTRIBUTES = {"modality": "audio", "backbone": "test", "weights": "none", "segment_seconds": 1.0}


def write(path: Path, clips: int, shape: tuple[int, ...]) -> list[str]:
    """A feature file of random float16."""
    names = [f"clip{number:08d}" for number in range(clips)]
    noise = np.random.default_rng(0).standard_normal((64, *shape)).astype(np.float16)
    with FeatureWriter(path, names, shape, ATTRIBUTES, "float16") as writer:
        for number, name in enumerate(names):
            writer.write(name, noise[number % 64], shape[0])
        writer.finish()
    return names


def clip_by_clip(dataset: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    """What FeatureFile.read did before it read past the library."""
    out = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
    for place, row in enumerate(rows):
        dataset.read_direct(out, np.s_[row], np.s_[place])
        assert np.isfinite(out[place]).all()
    return out


def read(arguments, folder: Path) -> None:
    shape = (10, 7, 7, 512)
    write(folder / "video.h5", arguments.clips, shape)
    batches = np.random.default_rng(1).integers(0, arguments.clips, (arguments.batches, arguments.batch_size))
    with FeatureFile([folder / "video.h5"]) as file, h5py.File(folder / "video.h5", locking=False) as raw:
        dataset = raw["features"]
        file.read(batches[0])  # finds where the rows lie
        assert np.array_equal(file.read(batches[0]), clip_by_clip(dataset, batches[0]))
        out = np.empty((arguments.batch_size, *shape), np.float16)
        rates = {}
        for name, way in (
            ("before", lambda rows: clip_by_clip(dataset, rows)),
            ("now", file.read),
            ("now, into memory that is there", lambda rows: file.read(rows, out)),
        ):
            begin = time.perf_counter()
            for rows in batches:
                way(rows)
            rates[name] = batches.size / (time.perf_counter() - begin)
    for name, rate in rates.items():
        size = 2 * np.prod(shape) / 1e9
        print(f"{name:32} {rate:8,.0f} clips/s {rate * size:6.1f} GB/s {rate / rates['before']:6.1f} x")


def grow(arguments, folder: Path) -> None:
    shape = (2, 16)
    names = write(folder / "audio.h5", arguments.clips, shape)
    begin = time.perf_counter()
    with h5py.File(folder / "audio.h5") as old, h5py.File(folder / "copy.h5", "w") as new:
        new.create_dataset("features", old["features"].shape, "f2", chunks=(1, *shape))
        for row in range(arguments.clips // 10):
            new["features"][row] = old["features"][row]
    before = 10 * (time.perf_counter() - begin)
    begin = time.perf_counter()
    with FeatureWriter(folder / "audio.h5", [*names, "another"], shape, ATTRIBUTES) as writer:
        now = time.perf_counter() - begin
        assert writer.pending == ["another"]
    print(f"{arguments.clips:,} rows of 64 bytes: before {before:.1f} s (from a tenth of them), now {now:.2f} s")
    print(f"{before / now:.0f} x")


def opening(arguments, folder: Path) -> None:
    path = folder / "audio.h5"
    with FeatureWriter(path, [f"clip{number:08d}" for number in range(arguments.clips)], (2, 16), ATTRIBUTES) as file:
        file.finish()
    with h5py.File(path, "r+") as raw:
        raw["length"][:] = 2
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    file = FeatureFile([path])
    steps = {"open": time.perf_counter() - begin}
    for name, step in (("digest", lambda: file.digest), ("first batch", lambda: file.read(range(0, len(file), 9999)))):
        begin = time.perf_counter()
        step()
        steps[name] = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{len(file):,} clips: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in steps.items()))
    print(f"peak memory {(after - before) / 1024:,.0f} MiB more than before")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["read", "grow", "open"])
    parser.add_argument("--clips", type=int, help="4,000 to read, 200,000 to grow, 1,000,000 to open")
    parser.add_argument("--batches", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=80)
    parser.add_argument("--folder", type=Path, help="where to write (a temporary folder)")
    arguments = parser.parse_args()
    arguments.clips = arguments.clips or {"read": 4000, "grow": 200_000, "open": 1_000_000}[arguments.what]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        {"read": read, "grow": grow, "open": opening}[arguments.what](arguments, Path(folder))
