"""TOC against the double sum of the paper and the reference vectors."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from described import undocumented
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hdcid_cli.codes import toc
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.records import TOC_SCHEMA

codebooks = arrays(np.float64, st.tuples(st.integers(2, 12), st.integers(1, 9)), elements=st.floats(-3, 3, width=32))


@given(codebooks)
@settings(max_examples=50)
def test_closed_form_equals_the_double_sum_over_pairs(codebook):
    expected = (
        sum(codebook[i] * codebook[j] for i in range(len(codebook)) for j in range(len(codebook)) if i != j)
        / len(codebook) ** 2
    )
    np.testing.assert_allclose(toc.channel_similarity(codebook, normalise=False), expected, atol=1e-9)


@pytest.mark.parametrize("rows,normalise", [("raw", False), ("unit", True)])
def test_similarity_and_variance_equal_the_reference(shared, rows, normalise):
    reference = np.load(shared / "reference" / "toc.npz")
    codebook = reference["in/codebook"]
    codes = len(codebook)  # the released code divides by L (L - 1), the paper by L^2
    similarity = toc.channel_similarity(codebook, normalise) * codes / (codes - 1)
    np.testing.assert_allclose(similarity, reference[f"out/{rows}_similarity"], rtol=1e-8, atol=1e-14)
    for name, unbiased in (("variance", False), ("variance_unbiased", True)):
        np.testing.assert_allclose(
            toc.channel_variance(codebook, normalise, unbiased), reference[f"out/{rows}_{name}"], rtol=1e-8
        )


def test_released_cost_is_the_papers_with_its_own_divisors():
    codebook = np.random.default_rng(0).normal(size=(9, 5))
    ours = toc.channel_cost(codebook, normalise=False, released=True)
    pairs = [(i, j) for i in range(9) for j in range(9) if i != j]
    similarity = sum(codebook[i] * codebook[j] for i, j in pairs) / (9 * 8)
    np.testing.assert_allclose(ours, 0.7 * similarity - 0.3 * codebook.var(axis=0, ddof=1), rtol=1e-12)


def test_channels_of_least_cost_are_kept():
    # Channel 0 is the same in every code, channel 1 tells codes apart, channel 2 lies between.
    codebook = np.array([[1.0, 1.0, 0.5], [1.0, -1.0, 0.1], [1.0, 1.0, 0.5], [1.0, -1.0, 0.1]])
    assert toc.select_channels(codebook, 1).tolist() == [1]
    assert toc.select_channels(codebook, 2).tolist() == [1, 2]
    assert toc.select_channels(codebook, 2, mix=(1, 1)).tolist() == [0, 1]


@given(codebooks, st.data())
@settings(max_examples=30)
def test_every_selection_has_the_asked_number_of_different_channels(codebook, data):
    keep = data.draw(st.integers(1, codebook.shape[1]))
    mix = data.draw(st.sampled_from([(1, 0), (3, 1), (1, 1)]))
    chosen = toc.select_channels(codebook, keep, data.draw(st.sampled_from(toc.CRITERIA)), mix=mix)
    assert len(set(chosen.tolist())) == keep and 0 <= chosen.min() <= chosen.max() < codebook.shape[1]


class FakeCheckpoint:
    def __init__(self, layers=2, stored=None, kind="hdcid"):
        self.settings = SimpleNamespace(kind=kind)
        self.codebooks = [np.random.default_rng(layer).normal(size=(40, 256)) for layer in range(layers)]
        self.toc = stored


def test_toc_on_the_line_means_what_the_papers_mean():
    two, one = FakeCheckpoint(2), FakeCheckpoint(1)
    assert toc.resolve_toc("none", two, "ave", "video") is None
    assert toc.resolve_toc("stored", two, "ave", "video") is None
    assert [len(c) for c in toc.resolve_toc("128", two, "ave", "audio").channels] == [128, 128]
    assert toc.resolve_toc("224/196", two, "ave", "video").label == "224"
    assert toc.resolve_toc("224/196", two, "ave", "audio").label == "196"
    assert toc.resolve_toc("paper", one, "avvp", "video").label == "128 (3:1)"
    assert toc.resolve_toc("paper", two, "ave", "video").label == "128"
    fcid = FakeCheckpoint(1, kind="fcid")
    chosen = toc.resolve_toc("paper", fcid, "avvp", "audio")
    raw = toc.select_channels(fcid.codebooks[0], 196, normalise=False, released=True)
    assert chosen.label == "196" and chosen.channels[0].tolist() == raw.tolist()
    with pytest.raises(InputError, match=r"names no TOC channels for avvp learned on video \(fcid\)"):
        toc.resolve_toc("paper", fcid, "avvp", "video")
    stored = FakeCheckpoint(1, toc.Selection([np.array([3, 5])], "2"))
    assert toc.resolve_toc("stored", stored, "ave", "video").channels[0].tolist() == [3, 5]


@pytest.mark.parametrize("text", ["many", "1/2/3", "0", "300"])
def test_an_impossible_toc_is_refused_in_a_sentence(text):
    with pytest.raises(InputError, match=r"TOC|--toc"):
        toc.resolve_toc(text, FakeCheckpoint(), "ave", "video")


def test_the_task_reads_the_selected_channels_of_every_layer():
    quantized = np.arange(2 * 3 * 2 * 4).reshape(2, 3, 2, 4)
    selection = toc.Selection([np.array([0, 2]), np.array([3])], "2")
    chosen = toc.apply_toc(quantized, selection)
    assert chosen.shape == (2, 3, 3)
    np.testing.assert_array_equal(chosen[1, 2], quantized[1, 2, [0, 0, 1], [0, 2, 3]])
    assert toc.apply_toc(quantized, None).shape == (2, 3, 8)


def test_command_stores_the_selection_and_draws_both_heat_maps(hdcid, tmp_path):
    from worlds import write_features

    write_features(tmp_path / "features", clips=8)
    assert hdcid("pretrain", "--epochs", "1", "--dim", "16", "--codebook", "12").returncode == 0
    done = hdcid("toc", "--keep", "5", "--plot", "codes.png")
    assert done.returncode == 0, done.stderr
    assert not undocumented(done.stdout)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["layer"] for record in records] == [1, 2]
    assert {record["schema"] for record in records} == {TOC_SCHEMA}
    stored = json.loads((tmp_path / "checkpoints" / "latest" / "toc.json").read_text())
    assert [len(channels) for channels in stored["channels"]] == [5, 5]
    assert (tmp_path / "codes.png").read_bytes().startswith(b"\x89PNG")
    refused = hdcid("toc", "--keep", "4", "--plot", "codes.docx")
    assert refused.returncode == 2 and "codes.docx: pictures can be png, pdf or svg" in refused.stderr
    assert json.loads((tmp_path / "checkpoints" / "latest" / "toc.json").read_text()) == stored  # told before the work
    refused = hdcid("toc", "--keep", "99")
    assert refused.returncode == 2 and "between 1 and 16" in refused.stderr
