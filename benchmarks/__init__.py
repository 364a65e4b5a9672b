"""Measurements that a person starts; see docs/performance.md."""

import os

# Asked so whether there is a GPU, CUDA does not begin in this process: forks of one in which it
# has begun cannot begin it (`gpu_cases`). Before any import that asks.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
