"""Diffusion models: one protocol, one file for each family, adapters and sampling."""

from atelier import quick_imports

quick_imports.remember_distributions()  # before transformers and diffusers are imported
