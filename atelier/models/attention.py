"""Attention kernels: let all attention of a network be computed by one that is named."""

from typing import Any

from atelier.errors import ParamsError

_KERNELS = {  # of attention, by the names of diffusers' dispatcher
    "math": "_native_math",
    "efficient": "_native_efficient",
    "flash": "_native_flash",
    "cudnn": "_native_cudnn",
    "flash-2": "flash",
    "flash-3": "_flash_3",
}


def attend_by(network: Any, kernel: str) -> None:
    """Let all attention of a network be computed by one kernel.

    All states of the network compute with it, in training and in painting. Its sums are in
    another order than those of other kernels.

    Raises:
        ParamsError: The network asks torch alone, or the kernel's package is not here.
    """
    from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend

    asking = [module.processor for module in network.modules() if _asks_dispatcher(module)]
    if not asking:
        raise ParamsError(
            f"model.attention is {kernel!r}, and {type(network).__name__} lets torch choose "
            "its kernels; set it to null"
        )
    backend = AttentionBackendName(_KERNELS[kernel])
    try:
        with attention_backend(backend):  # sees whether its package is here
            pass
    except (ImportError, RuntimeError, ValueError) as error:
        said = " ".join(str(error).split())
        raise ParamsError(
            f"model.attention {kernel!r} is not to be had here: {said} Or set it to null"
        ) from None
    # Not by the network's own method, which changes what other networks of the process call.
    for processor in asking:
        processor._attention_backend = backend


def _asks_dispatcher(module: Any) -> bool:
    return hasattr(getattr(module, "processor", None), "_attention_backend")
