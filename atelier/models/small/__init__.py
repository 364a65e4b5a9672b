"""Small base models from nothing: real diffusers and transformers classes, few parameters."""
