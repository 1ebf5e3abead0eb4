"""Quantizers against an independent library (vector-quantize-pytorch), where both define the same thing."""

import pytest
import torch

from hdcid_cli.models.quantizers.fsq import FiniteScalarQuantizer
from hdcid_cli.models.quantizers.vq import VectorQuantizer

library = pytest.importorskip("vector_quantize_pytorch")


@pytest.fixture(autouse=True)
def seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.mark.parametrize("levels", [[8, 5, 5, 5], [8, 6, 5], [3], [4, 7]])
def test_fsq_gives_the_same_codes_indices_and_codebook(levels):
    ours, theirs = FiniteScalarQuantizer(levels, 6), library.FSQ(levels)
    z = torch.randn(4, 50, 6) * 4
    quantized, indices = ours(z)
    codes, expected = theirs(ours.project_in(z))
    torch.testing.assert_close(quantized, ours.project_out(codes))
    assert torch.equal(indices[..., 0], expected.long())
    torch.testing.assert_close(ours.grid, theirs.implicit_codebook)


@pytest.mark.parametrize("stages", [1, 3])
def test_rvq_gives_the_same_codes_and_decodes_them_to_the_same(stages):
    ours = VectorQuantizer(20, 6, stages=stages)
    ours.codebook.normal_()
    theirs = library.ResidualVQ(dim=6, num_quantizers=stages, codebook_size=20).eval()
    for layer, codebook in zip(theirs.layers, ours.codebook, strict=True):
        layer._codebook.embed.copy_(codebook.unsqueeze(0))
    z = torch.randn(4, 50, 6)
    code, indices = ours(z)
    expected, chosen, _ = theirs(z)
    assert torch.equal(indices, chosen)
    torch.testing.assert_close(code, expected)
    torch.testing.assert_close(ours.decode(indices), theirs.get_output_from_indices(chosen))


def test_with_one_modality_mm_ema_is_the_usual_moving_average():
    ours = VectorQuantizer(20, 6)
    ours.codebook.normal_()
    ours.weight.copy_(ours.codebook * 3)
    ours.count.fill_(3.0)
    theirs = library.VectorQuantize(dim=6, codebook_size=20, decay=0.9, eps=1e-5, threshold_ema_dead_code=0).train()
    book = theirs._codebook
    book.embed.copy_(ours.codebook)
    book.embed_avg.copy_(ours.weight)
    book.cluster_size.copy_(ours.count)
    z = torch.randn(4, 50, 6)
    indices = ours(z)[1]
    ours.update({"audio": z}, {"audio": indices}, decay=0.9)
    theirs(z)
    torch.testing.assert_close(ours.weight, book.embed_avg)
    torch.testing.assert_close(ours.codebook, book.embed)
