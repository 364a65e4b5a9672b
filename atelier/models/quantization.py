"""Quantization of the frozen base's linear layers, with diffusers' backends.

LoRAs on it stay in float32 and are trained as on any base; passes compute in ``model.dtype``.
"""

import importlib.util
from typing import Any, Literal

import torch

from atelier.errors import ParamsError

_PACKAGES = {"int8": "torchao", "fp8": "torchao", "nf4": "bitsandbytes"}
_How = Literal["int8", "fp8", "nf4"]


def config(how: _How, dtype: torch.dtype) -> Any:
    """Return diffusers' quantization config for a network.

    * ``int8``: weights in 8 bits with a scale a row, by torchao; on any device.
    * ``fp8``: the same in floating point of 8 bits (e4m3). Products are made in ``dtype``.
    * ``nf4``: weights in 4 bits with a scale a block (Dettmers et al. 2023,
      arXiv:2305.14314), by bitsandbytes; CUDA only.

    Raises:
        ParamsError: The package or the device is not here.
    """
    package = _PACKAGES[how]
    if how == "nf4" and not torch.cuda.is_available():
        raise ParamsError(
            "model.quantise 'nf4' needs a CUDA device; 'int8', 'fp8' and null work on any"
        )
    if importlib.util.find_spec(package) is None:
        raise ParamsError(
            f"model.quantise {how!r} needs the package {package}: `pip install "
            "'atelier[cuda]'`; or set it to null"
        )
    if how in ("int8", "fp8"):
        from diffusers import TorchAoConfig
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

        return TorchAoConfig(
            Int8WeightOnlyConfig() if how == "int8" else Float8WeightOnlyConfig()
        )
    from diffusers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )
