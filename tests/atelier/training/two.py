"""A short CPO-S training of a toy, for processes that share it."""

import torch

from atelier.models import adapters
from atelier.training import loop, steps
from tests.atelier.conftest import lora_params, objective_params, tiny, training_params

OBJECTIVE = objective_params("cpo-s", omega=1.0, learning_rate=0.003)
TRAINING = training_params(
    steps=8,
    batch_images=5,
    images_at_once=2,
    warmup_steps=1,
    schedule="cosine",
    ema_decay=0.9,
    seed=3,
    checkpoint_steps=4,
)


def curve(family, folder, together):
    """Return what each step reports."""
    painter = tiny(family)
    prompts = ["", "a sea", "a sea, calm edges", "a sea, harsh edges"]
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(7, *painter.latent_shape(32), generator=generator)
    every = torch.ones(7, 1, dtype=torch.long)
    rows = {"caption": every, "winner": 2 * every, "loser": 3 * every}
    corpus = steps.Corpus(latents, painter.encode_texts(prompts), rows, empty=0)
    lora = lora_params(rank=2, alpha=2)
    for seed, name in enumerate(("theta1", "theta")):
        adapters.add(painter.network, name, lora, seed=seed)
    for parameter in adapters.weights(painter.network, "theta1").values():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    told = []
    with adapters.learning(painter.network, "theta"):
        loop.fit(
            adapters.weights(painter.network, "theta"),
            steps.complex_preference(
                painter,
                corpus,
                OBJECTIVE,
                TRAINING,
                teacher="theta1",
                policy="theta",
                caption_dropout=0.3,
            ),
            learning_rate=OBJECTIVE.learning_rate,
            params=TRAINING,
            folder=folder,
            report=lambda step, values: told.append(values),
            ranks=together,
        )
    return told
