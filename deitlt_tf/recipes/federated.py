"""The settings of federated training: clients, rounds and heads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Clients:
    """Who takes part: `count` clients that share one data set, or one client for each folder of `dirs`."""

    count: int
    dirs: tuple[str, ...]
    alpha: float
    partition_seed: int
    fraction: float


@dataclass(frozen=True)
class Rounds:
    """How many rounds there are, and what a client does in one. proximal: FedProx's mu."""

    count: int
    epochs: int
    batch_size: int
    lr: float
    momentum: float
    proximal: float


@dataclass(frozen=True)
class FederatedHeads:
    """FedLoGe's parts (fixed head, local heads, GLA-FR), the zeros and norm of the fixed head, GLA-FR's length."""

    fixed: bool
    local: bool
    realign: bool
    sparsity: float
    norm: float
    length: float


@dataclass(frozen=True)
class Federated:
    """Clients that train one network together. network: cnn, the teacher's, or vit, the student's."""

    method: str
    network: str
    clients: Clients
    rounds: Rounds
    heads: FederatedHeads

    @classmethod
    def read(cls, flags: Mapping[str, Any]) -> Self:
        """The settings of federated training for these flags."""
        return cls(
            method=flags["federated_method"],
            network=flags["federated_network"],
            clients=Clients(
                count=flags["federated_clients"],
                dirs=tuple(flags["federated_client_dirs"]),
                alpha=flags["federated_alpha"],
                partition_seed=flags["federated_partition_seed"],
                fraction=flags["federated_fraction"],
            ),
            rounds=Rounds(
                count=flags["federated_rounds"],
                epochs=flags["federated_epochs"],
                batch_size=flags["federated_batch_size"],
                lr=flags["federated_lr"],
                momentum=flags["federated_momentum"],
                proximal=flags["federated_proximal"],
            ),
            heads=FederatedHeads(
                fixed=flags["federated_fixed_head"],
                local=flags["federated_local_head"],
                realign=flags["federated_realign"],
                sparsity=flags["federated_sparsity"],
                norm=flags["federated_head_norm"],
                length=flags["federated_length"],
            ),
        )

    @property
    def has_fixed_head(self) -> bool:
        """Whether SSE-C trains the features."""
        return self.method == "fedloge" and self.heads.fixed

    @property
    def has_local_heads(self) -> bool:
        """Whether each client keeps a head of its own."""
        return self.method == "fedloge" and self.heads.local

    @property
    def proximal(self) -> float:
        """FedProx's mu; 0 for the other methods."""
        return self.rounds.proximal if self.method == "fedprox" else 0.0
