"""A data set of coloured squares in AVSBench-S4's layout, and a model whose codes name the colours."""

from pathlib import Path

import numpy as np

from hdcid_cli.core.features import FeatureWriter
from hdcid_cli.media.picture import write_picture

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 70, 230)}

# A backbone of pictures that learns in seconds, by transformers' names.
TINY = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 16, 16, 16],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
}


def write_squares(data: Path, clips: dict[str, int], size: int = 32, seed: int = 0) -> list[tuple[str, str]]:
    """Make `data/avs_s4` with so many clips a split: one square of the clip's colour, one of another. Returns (name,
    colour) of each.
    """
    random = np.random.default_rng(seed)
    root = data / "avs_s4" / "s4_data"
    names = list(COLOURS)
    rows, made = ["name,start,category,split"], []
    for split, count in clips.items():
        for number in range(count):
            category, other = names[number % 3], names[(number + 1 + random.integers(2)) % 3]
            name = f"{split}{number:03d}"
            first_on_the_left = random.random() < 0.5
            for frame in range(1, 6):
                picture = np.full((size, size, 3), 90, np.uint8) + random.integers(0, 40, (size, size, 1), np.uint8)
                for colour, left in ((other, not first_on_the_left), (category, first_on_the_left)):
                    side = int(random.integers(size // 4, size // 2))
                    y = int(random.integers(0, size - side))
                    x = int(random.integers(0, size // 2 - side + 1)) + (0 if left else size // 2)
                    where = np.zeros((size, size), bool)
                    where[y : y + side, x : x + side] = True
                    picture[where] = COLOURS[colour]
                place = Path(split, category, name)
                write_picture(root / "visual_frames" / place / f"{name}_{frame}.png", picture)
                if split != "train" or frame == 1:
                    write_picture(root / "gt_masks" / place / f"{name}_{frame}.png", where.astype(np.uint8) * 255)
            rows.append(f"{name},0,{category},{split}")
            made.append((name, category))
    (data / "avs_s4" / "s4_meta_data.csv").write_text("\n".join(rows) + "\n")
    (data / "avs_s4" / "AVSBenchCategories2Prompts.csv").write_text(
        "label,prompt\n" + "".join(f"{name},a {name} square hums\n" for name in names)
    )
    return made


def centres(width: int) -> dict[str, np.ndarray]:
    """What stands for a colour in sound and in text: a vector of its own."""
    random = np.random.default_rng(1)
    return {name: random.normal(size=width) for name in COLOURS}


def write_features(folder: Path, made: list[tuple[str, str]], width: int = 12) -> None:
    """Feature files: a clip's sound, and its category's prompt, are the colour's vector and a little noise."""
    random = np.random.default_rng(2)
    for modality, backbone, rows in (("audio", "logmel", made), ("text", "hash", [(name, name) for name in COLOURS])):
        attributes = {"modality": modality, "backbone": backbone, "weights": "none", "segment_seconds": 1.0}
        with FeatureWriter(
            folder / f"{modality}.h5", [name for name, _ in rows], (10, width), attributes, "float32"
        ) as writer:
            for name, category in rows:
                noise = 0.02 * random.normal(size=(10, width))
                writer.write(name, centres(width)[category] + noise, 5 if modality == "audio" else 10)
            writer.finish()


def write_tiny_checkpoint(path: Path, width: int = 12) -> None:
    """A model with random weights that encodes sound and text alike; each colour has a code on its place."""
    import torch

    from hdcid_cli.codes.checkpoint import write_checkpoint
    from hdcid_cli.models.hdcid import HDCID
    from hdcid_cli.models.settings import ModelSettings

    torch.manual_seed(0)
    config = ModelSettings(
        inputs={"audio": (width,), "text": (width,)},
        layers=1,
        dim=8,
        codebook=3,
        feedforward=8,
        specific=8,
        text_hidden=0,
    )
    model = HDCID(config).eval()
    layer = model.layers[0]
    layer.general["text"].load_state_dict(layer.general["audio"].state_dict())
    colours = torch.from_numpy(np.stack(list(centres(width).values()))).float()
    with torch.no_grad():
        layer.quantizer.codebook[0] = layer.encode_general("audio", colours[:, None].expand(-1, 10, -1))[:, 0]
    features = {"audio": {"backbone": "logmel"}, "text": {"backbone": "hash"}}
    sections = {"model": config.to_dict(), "objective": {"align": ["cpc"]}, "train": {"seed": 0}, "features": features}
    write_checkpoint(path, sections, model)
