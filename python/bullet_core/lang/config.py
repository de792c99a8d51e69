"""Settings of kernels: variables of this module, with Warp's names."""

from __future__ import annotations

import enum


class DeterministicMode(enum.IntEnum):
    """Whether launches leave the same bits at every run. The last two are one here: what one run gives, every run gives."""

    NOT_GUARANTEED = 0
    RUN_TO_RUN = 1
    GPU_TO_GPU = 2


deterministic: DeterministicMode | bool = DeterministicMode.NOT_GUARANTEED
"""Of launches that do not say it themselves, of kernels that do not."""

deterministic_max_records: int = 0
"""Of Warp's programs; here launches find out how much room they need."""
