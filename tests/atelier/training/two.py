"""A short CPO-S training of a toy, for processes that share it."""

import torch

from atelier.models import adapters
from atelier.objectives.objective import Setup
from atelier.training import loop
from atelier.training.corpus import Corpus
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


def curve(family, folder, together, batch_images=5, checkpointing=False):
    """Return what each step reports, and the share of the base that this process holds.

    The trained LoRA lies in ``folder`` then.
    """
    from atelier.models import sharding

    painter = tiny(family)
    prompts = ["", "a sea", "a sea, calm edges", "a sea, harsh edges"]
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(7, *painter.latent_shape(32), generator=generator)
    every = torch.ones(7, 1, dtype=torch.long)
    rows = {"caption": every, "winner": 2 * every, "loser": 3 * every}
    corpus = Corpus(latents, painter.encode_texts(prompts), rows, empty=0)
    lora = lora_params(rank=2, alpha=2)
    for seed, name in enumerate(("theta1", "theta")):
        adapters.add(painter.network, name, lora, seed=seed)
    for parameter in adapters.weights(painter.network, "theta1").values():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    if together.sharded:
        sharding.shard(painter.network)
    if checkpointing:
        painter.network.enable_gradient_checkpointing()
    training = TRAINING.model_copy(update={"batch_images": batch_images})
    told = []
    with adapters.learning(painter.network, "theta"):
        loop.fit(
            adapters.weights(painter.network, "theta"),
            OBJECTIVE.step(Setup(painter, corpus, training, "theta1", "theta", 0.3)),
            learning_rate=OBJECTIVE.learning_rate,
            params=training,
            folder=folder,
            report=lambda step, values: told.append(values),
            ranks=together,
        )
    if together.first:
        adapters.save(painter, "theta", folder)
    return told, _held(painter.network)


def _held(network):
    """Bytes of frozen weights that lie in this process, as a share of all."""
    frozen = [p for name, p in network.named_parameters() if ".lora_" not in name]
    local = [getattr(p, "_local_tensor", p) for p in frozen]
    return sum(p.nbytes for p in local) / sum(p.nbytes for p in frozen)
