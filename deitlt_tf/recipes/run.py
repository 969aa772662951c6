"""The settings of a run: its folder, seed and devices."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from deitlt_tf.recipes import values


@dataclass(frozen=True)
class Run:
    """The folder of the run, its seed, and its devices."""

    workdir: str
    seed: int
    strategy: str
    worker_timeout: float
    logical_cpus: int
    precision: str
    deterministic: bool
    checkpoint_seconds: float
    eval_every: int
    traceback: bool

    @classmethod
    def read(cls, flags: Mapping[str, Any]) -> Self:
        """The settings of the run for these flags."""
        return cls(**values.alike(cls, flags))

    @property
    def folder(self) -> Path:
        """`workdir` as a path."""
        return Path(self.workdir)

    def devices(self) -> dict[str, Any]:
        """Keywords of `devices.strategy.running`."""
        return {"name": self.strategy, "logical_cpus": self.logical_cpus, "timeout_seconds": self.worker_timeout}

    def numerics(self) -> dict[str, Any]:
        """Keywords of `devices.strategy.prepare`."""
        return {"seed": self.seed, "precision": self.precision, "deterministic": self.deterministic}
