"""How fast feature files are: python tests/benchmarks/features.py {read,grow,open} [options]

read  random batches of large clips: HDF5 and np.isfinite, clip by clip, and the system's own call for the same bytes,
      against FeatureFile.read, which looks at every number too.
grow  clips added to a file of many small rows: HDF5, row by row, against FeatureWriter.
open  time and memory of opening a file of many clips, of its digest, its first batch and `info --quick`.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path
from unittest import mock

import h5py
import numpy as np

from hdcid_cli.core.features import FeatureFile, FeatureWriter
from hdcid_cli.core.features import rows as features_rows

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
    shape, path = (10, 7, 7, 512), folder / "video.h5"
    write(path, arguments.clips, shape)
    batches = np.random.default_rng(1).integers(0, arguments.clips, (arguments.batches, arguments.batch_size))
    out = np.empty((arguments.batch_size, *shape), np.float16)
    with FeatureFile([path]) as file, h5py.File(path, locking=False) as raw:
        dataset, reader = raw["features"], file._readers[0]
        expected = clip_by_clip(dataset, batches[0])
        assert np.array_equal(file.read(batches[0]), expected)  # it finds where the rows lie, too
        handle = os.open(path, os.O_RDONLY)

        def plainly(rows: np.ndarray) -> None:
            for place, row in enumerate(rows):
                os.preadv(handle, [out[place].data.cast("B")], int(reader.offsets[row]))

        def alone(rows: np.ndarray) -> None:
            with mock.patch.object(features_rows, "SHARED_BYTES", 1 << 60):
                file.read(rows, out)

        ways = {
            "before": lambda rows: clip_by_clip(dataset, rows),
            "preadv alone, one thread": plainly,
            "now, one thread": alone,
            "now": lambda rows: file.read(rows, out),
            "now, into new memory": file.read,
        }
        best = dict.fromkeys(ways, 0.0)
        for _ in range(3):  # in turn, and the best of each: other programs disturb all of them alike
            for name, way in ways.items():
                begin = time.perf_counter()
                for rows in batches:
                    way(rows)
                best[name] = max(best[name], batches.size / (time.perf_counter() - begin))
        alone(batches[0])
        assert np.array_equal(out, expected)
        os.close(handle)
    size, plain = 2 * np.prod(shape) / 1e9, best["preadv alone, one thread"]
    for name, rate in best.items():
        shares = f"{rate / best['before']:6.1f} x {100 * rate / plain:6.0f} % of preadv"
        print(f"{name:28} {rate:8,.0f} clips/s {rate * size:6.1f} GB/s {shares}")


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
