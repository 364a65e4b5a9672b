"""Atelier: a diffusion model learns to paint under an expert's eye.

The method alone: this package knows no orchestrator, tracker, command line or path layout.
"""

from atelier import torchvision_compat

torchvision_compat.install()
