"""FID, KID and CLIPScore against a second public implementation, torchmetrics."""

import numpy as np
import pytest
import torch
from torch import nn

from atelier.metrics import fid, kid
from atelier.metrics.scorers import clipscore

WIDTH = 12


class Passing(nn.Module):
    """Stands where torchmetrics has its network: the 'pictures' are the features already."""

    num_features = WIDTH

    def forward(self, features):
        return features


def sets(count=150):
    generator = np.random.default_rng(3)
    mix = generator.normal(size=(WIDTH, WIDTH))
    painted = generator.normal(size=(count, WIDTH)) @ mix + 0.5
    return painted, generator.normal(size=(count, WIDTH))


def fed(metric):
    painted, real = (torch.from_numpy(rows) for rows in sets())
    metric.update(real, real=True)
    metric.update(painted, real=False)
    return metric.compute()


def test_fid_is_torchmetrics_fid():
    from torchmetrics.image.fid import FrechetInceptionDistance

    theirs = fed(FrechetInceptionDistance(Passing()).set_dtype(torch.float64))

    assert fid.frechet(*sets()) == pytest.approx(float(theirs), rel=1e-3)


@pytest.mark.filterwarnings("ignore:.*save all extracted features")
def test_kid_is_torchmetrics_kid():
    from torchmetrics.image.kid import KernelInceptionDistance

    # Every subset is the whole set, so the draws of neither side matter.
    theirs = fed(KernelInceptionDistance(Passing(), subsets=2, subset_size=150))[0]

    assert kid.kernel(*sets(), seed=0) == pytest.approx(float(theirs), rel=1e-3)


def test_clipscore_is_torchmetrics_cosine():
    from torchmetrics.functional import pairwise_cosine_similarity

    generator = torch.Generator().manual_seed(0)
    pictures, texts = torch.randn(2, 6, 8, generator=generator)

    ours = clipscore.clipscore(pictures, texts)

    theirs = 100 * pairwise_cosine_similarity(pictures, texts).diagonal().clamp(min=0)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)
