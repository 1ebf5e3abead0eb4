"""Text encoders with random weights, saved by transformers, against the library called directly on one text."""

import hashlib
import json

import numpy as np
import pytest
import torch
import transformers

from hdcid_cli.backbones import Options, load_again, load_backbone
from hdcid_cli.backbones.backbone import read_description
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureFile
from hdcid_cli.media.clips import find_clips

VOCABULARY = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "bark", "##ing", "##s", "loud", "##ly", "don", "'", "t",
    ",", ".", "photo", "of", "church", "bell",
]  # fmt: skip
LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
TEXT = {**LAYERS, "vocab_size": len(VOCABULARY), "max_position_embeddings": 64, "pad_token_id": 0}
PICTURES = {**LAYERS, "image_size": 32, "patch_size": 16}
CLIP = {"text_config": {**TEXT, "bos_token_id": 2, "eos_token_id": 3}, "vision_config": PICTURES, "projection_dim": 12}
SOUND = {
    "window_size": 4, "spec_size": 64, "patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [1, 1],
    "num_attention_heads": [1, 1], "num_mel_bins": 16,
}  # fmt: skip
FAMILIES = {
    "bert": ("BertConfig", TEXT),
    "roberta": ("RobertaConfig", TEXT),
    "t5": (
        "T5Config",
        {"vocab_size": len(VOCABULARY), "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2},
    ),
    "clip": ("CLIPConfig", CLIP),
    "siglip": ("SiglipConfig", {**CLIP, "text_config": {**TEXT, "max_position_embeddings": 16, "projection_size": 12}}),
    "clap": ("ClapConfig", {"text_config": TEXT, "audio_config": SOUND, "projection_dim": 12}),
}
SENTENCE = "A dog, barking loudly."


@pytest.fixture(scope="session")
def model_of(tmp_path_factory):
    """The folder of a family's tiny model with a tokenizer: `model_of("bert")`."""
    folders = {}

    def folder(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            config, settings = FAMILIES[name]
            torch.manual_seed(0)
            model = transformers.AutoModel.from_config(getattr(transformers, config)(**settings)).eval()
            model.save_pretrained(folders[name])
            (folders[name] / "vocab.txt").write_text("\n".join(VOCABULARY))
            said = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
            (folders[name] / "tokenizer_config.json").write_text(json.dumps(said))
        return folders[name]

    return folder


def opened(name, folder, **options):
    return load_backbone("text", str(folder), Options(device="cpu", **options))


def the_librarys(folder, text, length=None, **options):
    """(tokens, the text half, its inputs and its output) of one text alone."""
    tokenizer = transformers.BertTokenizerFast.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    inputs = tokenizer(text, return_tensors="pt", **({"padding": "max_length", "max_length": length} if length else {}))
    inputs = {"input_ids": inputs["input_ids"], **({} if length else {"attention_mask": inputs["attention_mask"]})}
    half = model.encoder if isinstance(model, transformers.T5Model) else getattr(model, "text_model", model)
    with torch.inference_mode():
        return tokenizer.convert_ids_to_tokens(inputs["input_ids"][0]), model, inputs, half(**inputs, **options)


# --- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_a_word_is_the_mean_of_its_sub_words(model_of, name):
    backbone = opened(name, model_of(name))
    tokens, _, _, output = the_librarys(model_of(name), SENTENCE, 16 if name == "siglip" else None)
    assert tokens[:10] == ["[CLS]", "a", "dog", ",", "bark", "##ing", "loud", "##ly", ".", "[SEP]"]
    states = output.last_hidden_state[0].numpy()
    expected = np.stack([states[1], states[2], states[4:6].mean(0), states[6:8].mean(0)])
    assert np.allclose(backbone.network([SENTENCE])[0], expected, atol=1e-5)
    assert backbone.shape == expected.shape[1:] and backbone.name == str(model_of(name))


def test_a_hidden_layer_is_the_librarys(model_of):
    _, _, _, output = the_librarys(model_of("bert"), SENTENCE, output_hidden_states=True)
    backbone = opened("bert", model_of("bert"), layer=1)
    assert np.allclose(backbone.network([SENTENCE])[0][0], output.hidden_states[1][0, 1], atol=1e-5)
    assert backbone.name.endswith(" layer=1")


@pytest.mark.parametrize("pool", ["words", "mean", "cls"])
@pytest.mark.parametrize("name", ["bert", "clip"])
def test_the_vectors_of_a_text_do_not_depend_on_its_neighbours(model_of, name, pool):
    network = opened(name, model_of(name), batch_size=4, pool=pool).network
    texts = ["a dog", "don't bark", "a dog barking " * 12, "dogs"]
    together = network(texts)
    assert [len(vectors) for vectors in together] == ([2, 2, 36, 1] if pool == "words" else [1] * 4)
    for text, vectors in zip(texts, together, strict=True):
        assert np.array_equal(vectors, network([text])[0])


def test_a_text_beyond_the_encoders_reach_keeps_its_first_words(model_of):
    assert len(opened("bert", model_of("bert")).network(["dog " * 500])[0]) == 62  # 64 positions, two of them special
    assert len(opened("roberta", model_of("roberta")).network(["dog " * 500])[0]) == 61  # counted from one on


# --- one vector a text ---------------------------------------------------------------------------


def test_the_mean_is_over_all_tokens(model_of):
    _, _, _, output = the_librarys(model_of("roberta"), SENTENCE)
    backbone = opened("roberta", model_of("roberta"), pool="mean")
    assert np.allclose(backbone.network([SENTENCE])[0], output.last_hidden_state[0].mean(dim=0)[None], atol=1e-5)
    assert backbone.name.endswith(" pool=mean")


@pytest.mark.parametrize("name", FAMILIES)
def test_the_summary_is_the_first_token_or_a_paired_models_embedding(model_of, name):
    _, model, inputs, output = the_librarys(model_of(name), SENTENCE, 16 if name == "siglip" else None)
    if hasattr(model, "get_text_features"):
        with torch.inference_mode():
            expected = model.get_text_features(**inputs)
        expected = getattr(expected, "pooler_output", expected)[0]
        assert len(expected) == 12  # as wide as that of pictures or sounds
    else:
        expected = output.last_hidden_state[0, 0]
    backbone = opened(name, model_of(name), pool="cls", batch_size=2)
    assert backbone.shape == expected.shape
    for vectors in backbone.network([SENTENCE, SENTENCE]):
        assert np.allclose(vectors, expected[None], atol=1e-5)


def test_both_halves_of_a_paired_model_serve_one_space(model_of, tmp_path):
    """The similarity that CLIP itself finds between a picture and a sentence is that of our features."""
    from hdcid_cli.backbones.picture_input import FILES

    for path in model_of("clip").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    said = {"size": 32, "crop_size": 32, "do_center_crop": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / FILES[0]).write_text(json.dumps({"image_processor_type": "CLIPImageProcessor", **said}))
    picture = np.random.default_rng(0).integers(0, 256, (1, 1, 32, 32, 3), np.uint8)
    pictures = load_backbone("video", str(tmp_path), Options(device="cpu", pool="cls", fps=1))
    ours = [pictures.network([picture])[0][0], opened("clip", tmp_path, pool="cls").network([SENTENCE])[0][0]]
    _, model, inputs, _ = the_librarys(tmp_path, SENTENCE)
    pixels = torch.from_numpy(picture[0]).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        logit = model(**inputs, pixel_values=pixels).logits_per_image.item() / model.logit_scale.exp().item()
    cosine = np.dot(*ours) / np.prod([np.linalg.norm(vector) for vector in ours])
    assert cosine == pytest.approx(logit, abs=1e-5)


# --- prompts -------------------------------------------------------------------------------------


def test_names_of_classes_are_texts_where_there_are_no_others(tmp_path):
    (tmp_path / "classes.csv").write_text("category\nChurch_bell\nDog\n")
    assert [(clip.id, clip.source) for clip in find_clips([str(tmp_path / "classes.csv")], "text")] == [
        ("Church_bell", "Church bell"),
        ("Dog", "Dog"),
    ]
    (tmp_path / "clips.csv").write_text("id,split,label\nx,train,Dog\ny,test,Dog\n")
    assert [(clip.id, clip.source) for clip in find_clips([str(tmp_path / "clips.csv")], "text")] == [
        ("x", "Dog"),
        ("y", "Dog"),
    ]


def test_a_prompt_is_a_sentence_around_each_text(model_of, tmp_path):
    from hdcid_cli.commands.extract import command

    (tmp_path / "classes.csv").write_text("category\nchurch_bell\ndog\n")
    arguments = ["--modality", "t", "--backbone", model_of("clip"), "--pool", "cls", "--prompt", "a photo of a {}."]
    path = tmp_path / "text.h5"
    command.main([*map(str, arguments), "-o", str(path), str(tmp_path / "classes.csv")], standalone_mode=False, obj={})
    with FeatureFile([path]) as file:
        assert (file.ids, file.length.tolist()) == (["church_bell", "dog"], [1, 1])
        assert file.backbone == f'{model_of("clip")} pool=cls prompt="a photo of a {{}}."'
        network = opened("clip", model_of("clip"), pool="cls").network
        expected = np.concatenate(network(["a photo of a church bell.", "a photo of a dog."]))
        assert np.allclose(file.read([0, 1])[:, 0], expected, atol=1e-5)
    with pytest.raises(InputError, match="should say where the text goes"):
        opened("clip", model_of("clip"), prompt="a photo")
    with pytest.raises(InputError, match="--prompt is for text features"):
        load_backbone("audio", "logmel", Options(prompt="{}"))


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pool": "cls", "layer": 3},
        {"grid": 1, "fps": 8},
        {"prompt": 'the so-called "{}" pool=x', "pool": "mean"},
        {"prompt": "a \\ and ü"},
    ],
)
def test_what_was_chosen_is_read_back_from_a_files_backbone(options):
    described = Options(**options).described("some/model with spaces")
    assert read_description(described) == ("some/model with spaces", options)
    assert read_description("hog@8fps") == ("hog", {"fps": 8})


def test_a_backbone_is_loaded_again_by_what_a_file_says_of_it(model_of):
    for first in (
        opened("clip", model_of("clip"), pool="cls", prompt="a {}"),
        load_backbone("text", "bert", Options(model=str(model_of("bert")), layer=1, device="cpu")),
        load_backbone("video", "hog", Options(fps=8)),
    ):
        again = load_again(first.modality, first.name, Options(device="cpu"))
        assert (again.name, again.weights, again.shape) == (first.name, first.weights, first.shape)


def test_the_papers_encoder_and_others_in_its_place_keep_their_names_and_digests(model_of):
    """Files that earlier versions made go on."""
    folder = model_of("bert")
    backbone = load_backbone("text", "bert", Options(model=str(folder), device="cpu"))
    assert backbone.name == f"bert:{folder}"
    sha = hashlib.sha256()
    for name, tensor in sorted(transformers.AutoModel.from_pretrained(folder).state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.float().numpy().tobytes())
    assert backbone.weights == f"sha256:{sha.hexdigest()}"


# --- what is refused -----------------------------------------------------------------------------


def test_a_text_encoder_that_is_not_there_is_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"no-such/encoder cannot be loaded .*--backbone hash"):
        load_backbone("text", "bert", Options(model="no-such/encoder"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_backbone("text", "bert", Options(model=str(tmp_path)))


def test_a_projection_that_is_missing_is_not_drawn_at_random(model_of, tmp_path):
    from safetensors.torch import load_file, save_file

    for path in model_of("clap").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    del weights[next(name for name in weights if "text_model.pooler" in name)]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    assert opened("clap", tmp_path).shape == (32,)  # words are not made of it
    with pytest.raises(InputError, match=r"it has no weights 'text_model\.pooler"):
        opened("clap", tmp_path, pool="cls")


def test_pools_and_models_of_other_modalities_are_refused(model_of, tmp_path):
    with pytest.raises(InputError, match="not --pool grid"):
        opened("bert", model_of("bert"), pool="grid")
    transformers.ViTModel(transformers.ViTConfig(**PICTURES)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"\(vit\) is no text encoder"):
        opened("vit", tmp_path)
