"""Small base models with random weights, from real diffusers and transformers classes."""
