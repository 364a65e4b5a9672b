"""Align text-to-image diffusion models with fine-grained expert criteria.

This package holds the method alone. It imports no orchestrator, tracker or command line, and
it contains no paths of the repository.
"""

from importlib.metadata import PackageNotFoundError, version

from atelier import torchvision_compat

torchvision_compat.install()

try:
    __version__ = version("atelier")
except PackageNotFoundError:  # a copy of the sources that was never installed
    __version__ = "0+unknown"
