"""Sharding of the frozen base over processes; each block is gathered when it is used.

torch's ``fully_shard`` (FSDP2) gathers a block's weights before its pass and frees them after
it. Adapters stay whole in every process, so sharding does not affect gradients, optimizer,
checkpoints or saved files, and the numbers are those of whole weights, up to rounding.

It is torch's function and not accelerate's plugin around it: the plugin names what to leave
whole by module, and takes network and optimizer together, whose parameters it replaces.
"""

import warnings
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

_OF_ADAPTERS = ".lora_"


def shard(network: Any) -> None:
    """Leave each process with its share of the network's frozen weights, for good.

    The processes must have joined, and from now on make the same passes in the same order:
    each of them is a gathering that waits for all. Adapters that are added later stay whole,
    too.

    Args:
        network: A diffusers model with its adapters, the same in every process.
    """
    if isinstance(network, FSDPModule):
        return
    device = next(network.parameters()).device.type
    mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
    whole = {p for name, p in network.named_parameters() if _OF_ADAPTERS in name}
    blocks = {*(network._repeated_blocks or ()), *(network._no_split_modules or ())}
    inner_first = reversed([m for m in network.modules() if type(m).__name__ in blocks])
    # FLUX's single blocks return views, which torch doubts; nothing writes into them.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)
    for module in (*inner_first, network):
        fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
