import pytest
import torch

from atelier.config.training import MinSNR
from atelier.objectives import denoising
from atelier.training.corpus import draw


def test_denoising_is_the_error_against_the_process_target(painter, corpus, training):
    step = denoising.step(
        painter, corpus, training, role="labelled", caption_dropout=0, weighting="constant"
    )

    loss, _ = step(0, False)

    clean, rows, noise, time, _ = draw(painter, corpus, training, 0)
    noisy = painter.process.add_noise(clean, noise, time)
    target = painter.process.target(clean, noise, time)
    condition = painter.encode_texts(["a sea, calm edges"] * len(rows))
    expected = (painter.predict(noisy, time, condition) - target).square().mean()
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("weighting", ["snr", MinSNR(min_snr_gamma=5.0)])
def test_denoising_is_weighted_by_time(painter, corpus, training, weighting):
    one = training.model_copy(update={"batch_images": 1})

    plain, weighted = (
        denoising.step(
            painter, corpus, one, role="labelled", caption_dropout=0, weighting=kind
        )(0, False)[0]
        for kind in ("constant", weighting)
    )

    time = draw(painter, corpus, one, 0)[3]
    snr, scale = painter.process.snr(time), painter.process.clean_scale(time)
    expected = snr / (1 + snr) if weighting == "snr" else scale * snr.clamp(max=5)
    torch.testing.assert_close(weighted, plain * expected[0], atol=1e-4, rtol=1e-4)


def test_full_caption_dropout_reads_only_the_empty_prompt(painter, corpus, training):
    dropped = denoising.step(
        painter, corpus, training, role="labelled", caption_dropout=1, weighting="constant"
    )
    corpus.rows["labelled"].fill_(corpus.empty)
    empty = denoising.step(
        painter, corpus, training, role="labelled", caption_dropout=0, weighting="constant"
    )

    assert torch.equal(dropped(1, False)[0], empty(1, False)[0])
