"""Diffusion models: one protocol, one file for each family, adapters and sampling."""

from atelier import quick_imports

# Before transformers and diffusers are imported.
quick_imports.remember_distributions()
quick_imports.load_science_later()
