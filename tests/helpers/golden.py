"""Numbers of the reference implementation, tests/golden/NAME.npz."""

import json

import numpy as np

from helpers import GOLDEN


class Golden:
    """Arrays of tests/golden/NAME.npz, with `config` parsed; numbers of the reference implementation."""

    def __init__(self, name: str):
        with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as archive:
            self.arrays = {key: archive[key] for key in archive.files if key != "config"}
            self.config = json.loads(str(archive["config"])) if "config" in archive.files else {}

    def __getitem__(self, key: str) -> np.ndarray:
        return self.arrays[key]

    def images(self, key: str) -> np.ndarray:
        """Stored as [..., C, H, W], returned as [..., H, W, C]."""
        return np.moveaxis(self.arrays[key], -3, -1)

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        return {key.removeprefix(prefix): value for key, value in self.arrays.items() if key.startswith(prefix)}
