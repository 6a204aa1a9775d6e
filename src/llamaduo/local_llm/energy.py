"""What a process takes in energy, about."""

from __future__ import annotations

import logging
import time
from typing import Any

import pynvml
import torch

logger = logging.getLogger(__name__)

WATTS_PER_CORE = 8.0
"""Of a busy one: a processor's thermal design power over its cores is 4 W in large servers and 15 W
in desktops."""
J_PER_WH = 3600


class EnergyMeter:
    """From its making on: the GPU's own counter, and an estimate for the processor's busy cores.

    Memory, fans and power supply are left out.
    """

    def __init__(self) -> None:
        self._gpu = None
        if torch.cuda.is_available():
            self._gpu = _gpu_with_a_counter()
        self._begun_at = self._joules()

    def watt_hours(self) -> float:
        """Since the beginning, of this process's cores and of its whole GPU."""
        return (self._joules() - self._begun_at) / J_PER_WH

    def _joules(self) -> float:
        """From some beginning."""
        cores = WATTS_PER_CORE * time.process_time()
        if self._gpu is None:
            return cores
        return cores + float(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu)) / 1000


def _gpu_with_a_counter() -> Any | None:
    """NVML's handle of this process's GPU; None where it counts no energy, as before Volta."""
    uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
    try:
        pynvml.nvmlInit()
        gpu = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu)
    except pynvml.NVMLError as error:
        logger.warning("the energy of this GPU is not known (%s): cores alone are counted", error)
        return None
    return gpu
