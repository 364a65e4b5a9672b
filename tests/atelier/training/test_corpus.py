import dataclasses

import torch

from atelier.models.denoiser import FRAME
from atelier.training.corpus import draw
from tests.atelier.conftest import IMAGES


def test_a_batch_is_drawn_within_one_bucket_and_every_image_as_often(painter, corpus):
    buckets = [torch.tensor([4, 1, 2]), torch.tensor([0, 3])]
    bucketed = dataclasses.replace(corpus, buckets=buckets)

    batches = [bucketed.batch(2, step, seed=1).tolist() for step in range(30)]

    kinds = [{4, 1, 2}, {0, 3}]
    assert all(any(set(batch) <= kind for kind in kinds) for batch in batches)
    assert [sum(batch.count(image) for batch in batches) for image in range(5)] == [12] * 5


def test_one_bucket_of_all_images_is_no_bucket(painter, corpus):
    one = dataclasses.replace(corpus, buckets=[torch.arange(IMAGES)])

    for step in range(5):
        assert torch.equal(one.batch(3, step, seed=2), corpus.batch(3, step, seed=2))


def test_each_picture_tells_its_own_frame_whatever_the_prompt(painter, corpus):
    frames = torch.arange(4.0 * IMAGES).reshape(IMAGES, 4)
    framed = dataclasses.replace(corpus, frames=frames)
    images = torch.tensor([3, 0])

    told = framed.condition(torch.tensor([1, 1]), images, torch.device("cpu"))
    silent = corpus.condition(torch.tensor([1, 1]), images, torch.device("cpu"))

    assert torch.equal(told.pop(FRAME), frames[images])
    assert told.keys() == silent.keys()
    assert all(torch.equal(told[name], silent[name]) for name in silent)


def test_offset_noise_moves_channels_as_a_whole_and_nothing_else(painter, corpus, training):
    offset = training.model_copy(update={"offset_noise": 0.5})

    _, rows, plain, time, _ = draw(painter, corpus, training, 0)
    _, same_rows, moved, same_time, _ = draw(painter, corpus, offset, 0)

    level = (moved - plain) / 0.5
    assert torch.equal(rows, same_rows)
    assert torch.equal(time, same_time)
    torch.testing.assert_close(level, level[:, :, :1, :1].expand_as(level), atol=1e-4, rtol=0)
    assert len(level[:, :, 0, 0].unique()) == level[:, :, 0, 0].numel()
    part = draw(painter, corpus, offset, 0, slice(1, 3))[2]
    assert torch.equal(part, moved[1:3])  # whoever takes a part sees the whole batch's
