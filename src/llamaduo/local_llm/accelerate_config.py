"""What must be known of an accelerate config before a training begins."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError


class AccelerateConfig(BaseModel):
    """A few keys of the file that ``accelerate config`` writes, in YAML or JSON."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    num_processes: int = Field(ge=1)
    num_machines: Literal[1] = 1
    """On several machines somebody would have to start it on each of them."""
    distributed_type: str = "NO"
    use_cpu: bool = False

    @property
    def on_cpu(self) -> bool:
        """Whether the processes leave the GPUs alone."""
        return self.use_cpu or self.distributed_type == "MULTI_CPU"

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a config.

        Raises:
            ValueError: It is no YAML, or a key is missing or means something else than one machine.
        """
        try:
            return cls.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
        except (yaml.YAMLError, ValidationError) as error:
            raise ValueError(
                f"{file} is no accelerate config for one machine; `accelerate config` writes one, "
                f"and conf/accelerate has examples ({error})"
            ) from error
