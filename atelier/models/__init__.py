"""Diffusion models: one protocol, one file for each family, adapters and sampling."""

from atelier import quick_imports

quick_imports.prepare()  # before transformers and diffusers are imported
