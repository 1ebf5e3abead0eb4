"""Every reader of annotations on generated damage: it reads, or says in one sentence which file it cannot read."""

import os
import pickle
import tempfile
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hostile_damage import hurt_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.splits import held_out, read_splits
from hdcid_cli.synth import annotations as made
from hdcid_cli.synth.world import SynthWorld
from hdcid_cli.tasks.annotations import ave, ave2avvp, identity, llp, own, ucf2vgg, vggsound
from hdcid_cli.tasks.annotations.clips import Annotations, segment_labels
from hdcid_cli.tasks.segmentation import avsbench

# More with HDCID_EXAMPLES=1000.
EXAMPLES = int(os.environ.get("HDCID_EXAMPLES", "12"))

OWN = {
    "classify.csv": [
        "id,split,label,group",
        *(f"c{n},{'train' if n % 3 else 'test'},{'ab'[n % 2]},r{n // 2}" for n in range(9)),
    ],
    "localise.csv": ["id,split,label,onset,offset", *(f"c{n},val,{'ab'[n % 2]},{n},{n + 1.5}" for n in range(9))],
}
READERS = {
    "ave": (ave.read, ("ave/Annotations.txt", "ave/trainSet.txt", "ave/testSet.txt")),
    "ave by rows": (ave.read, ("ave/Annotations.txt", "ave/train_order.h5", "ave/test_order.h5")),
    "ave by table": (ave.read, ("ave/Annotations.txt", "split.csv")),
    "llp": (
        lambda data: llp.read(data, "audio"),
        ("avvp/AVVP_eval_audio.csv", "avvp/AVVP_Categories.txt", "avvp/AVVP_val_pd.csv"),
    ),
    "ave2avvp": (
        lambda data: ave2avvp.read(data, "video")[1],
        (
            "ave/Annotations.txt",
            "ave2avvp/AVE_AVVP_Categories.txt",
            "ave2avvp/AVE_AVVP_eval_visual_checked_combined.csv",
        ),
    ),
    "ucf": (
        ucf2vgg.read_ucf,
        ("ucf2vgg/ucf2vggsound.csv", "ucf2vgg/UCF101sameVGGSound.txt", "ucf2vgg/VGGSoundsameUCF101.txt"),
    ),
    "vgg": (
        ucf2vgg.read_vggsound,
        ("ucf2vgg/vggsound2ucf.csv", "ucf2vgg/UCF101sameVGGSound.txt", "ucf2vgg/VGGSoundsameUCF101.txt"),
    ),
    "vggsound": (
        vggsound.read,
        ("vggsound/vggsound-avel40k.csv", "vggsound/VggsoundAVEL40kCategories.txt", "vggsound/labels/syn00000000.zip"),
    ),
    "classify": (own.read_classify, ("classify.csv",)),
    "localise": (own.read_localise, ("localise.csv",)),
    "splits": (lambda data: read_splits(data / "split.csv"), ("split.csv",)),
    "held out": (held_out, ("classify.csv", "localise.csv")),
    "scenes": (avsbench.read_meta, ("avs_s4/s4_meta_data.csv",)),
    "prompts": (avsbench.read_prompts, ("avs_s4/AVSBenchCategories2Prompts.csv",)),
}


def originals():
    """{path below the folder of data: bytes} of all files that the readers read."""
    files = {name: text.encode() for name, text in made.files(SynthWorld(clips=8, classes=2)).items()}
    files |= {name: "\n".join(lines).encode() for name, lines in OWN.items()}
    with tempfile.TemporaryDirectory() as folder:
        for split, order in (("train", [0, 1, 2, 3, 4]), ("test", [5, 6, 7])):
            with h5py.File(Path(folder, "order.h5"), "w") as file:
                file["order"] = order
            files[f"ave/{split}_order.h5"] = Path(folder, "order.h5").read_bytes()
        with zipfile.ZipFile(Path(folder, "one.zip"), "w") as archive:
            archive.writestr("one.pkl", pickle.dumps(np.array([0.0, 1, 1, 0])))
        files["vggsound/labels/syn00000000.zip"] = Path(folder, "one.zip").read_bytes()
    return files


ORIGINALS = originals()


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damage_is_read_or_refused_in_one_sentence(name, data):
    read, files = READERS[name]
    hurt = data.draw(st.sampled_from(files))
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            path = Path(folder, file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.draw(hurt_bytes(ORIGINALS[file])) if file == hurt else ORIGINALS[file])
        start = time.perf_counter()
        try:
            found = read(Path(folder))
            if isinstance(found, Annotations):
                labels = segment_labels(found.clips, len(found.classes), 10)
                assert np.isfinite(labels).all() and len(found.digest) == 16
                assert identity.data_set(found) in ("synth", "own")
        except InputError as error:
            text = str(error)
            assert folder in text and len(text) < 1000 and text.endswith("."), text
        assert time.perf_counter() - start < 5


@pytest.mark.parametrize("name", READERS)
def test_undamaged_files_are_read(name, tmp_path):
    read, files = READERS[name]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(ORIGINALS[file])
    assert read(tmp_path)
