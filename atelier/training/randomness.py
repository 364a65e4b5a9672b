"""Random numbers that depend on a seed, a step and a purpose, and on nothing else."""

import hashlib

import torch


def generator(seed: int, step: int, purpose: str) -> torch.Generator:
    """Return a generator that depends on nothing but its arguments."""
    digest = hashlib.blake2b(f"{seed} {step} {purpose}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
