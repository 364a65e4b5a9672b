"""Diffusion models: one protocol, one file for each family, adapters and sampling."""
