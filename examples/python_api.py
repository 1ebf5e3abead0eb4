"""hdcid from Python: from two arrays to a table, in twenty lines; run it as it is."""

import tempfile
from pathlib import Path

import numpy as np

import hdcid_cli as hdcid

rng, folder = np.random.default_rng(0), Path(tempfile.mkdtemp())
label = rng.integers(4, size=200)  # every clip shows one of four events, to the eye and to the ear
looks, sounds = rng.normal(size=(4, 16)), rng.normal(size=(4, 12))
ids = [f"clip{number:03}" for number in range(200)]
video = looks[label, None] + 0.5 * rng.normal(size=(200, 5, 16))
audio = sounds[label, None] + 0.5 * rng.normal(size=(200, 5, 12))
split = np.where(np.arange(200) % 5 < 3, "train", np.where(np.arange(200) % 5 == 3, "val", "test"))

hdcid.write_features(folder / "features/video.h5", ids, video, "video")
hdcid.write_features(folder / "features/audio.h5", ids, audio, "audio")
(folder / "classify.csv").write_text(
    "id,split,label\n" + "".join(f"{name},{part},event{event}\n" for name, part, event in zip(ids, split, label))
)

model = hdcid.pretrain(folder / "features", folder / "model", data=folder, dim=32, codebook=32, epochs=20)
codes = hdcid.encode(model, audio[:1], "audio")
print("codes of the first clip's seconds in both layers:", codes.indices[0, :, :, 0].tolist())

records = []
for train, test in (("video", "audio"), ("audio", "video")):
    records += hdcid.cmg("classify", model, train, test, folder / "features", folder)
print(hdcid.table(records))
