"""The GPU, if there is one."""

from ._core import cuda_is_available as is_available
from ._core import memory_stats

__all__ = ["is_available", "memory_stats"]
