"""Files of LoRA weights: those of other trainers, and weights that a person brings."""
