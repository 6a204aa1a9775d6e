"""What a process takes in energy, about."""

from __future__ import annotations

import time

import pynvml
import torch

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
            pynvml.nvmlInit()
            uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
            self._gpu = pynvml.nvmlDeviceGetHandleByUUID(uuid)
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
