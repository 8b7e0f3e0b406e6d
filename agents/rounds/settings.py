"""What an operator may set of federated rounds."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class FederateSettings(BaseSettings):
    """Reads `HEADWATER_FEDERATE_*`. What is taught and how it is judged, learn's settings say."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_FEDERATE_", frozen=True, extra="forbid")

    superlink: str = Field("127.0.0.1:9095", description="host:port of the SuperLink, on loopback")
    superlink_folder: Path = Field(
        Path(".headwater/superlink"),
        description="its state and certificate; rounds leave their sums there for a moment",
    )
    mechanism: Literal["none", "gaussian", "correlated"] = Field(
        "gaussian", description="what protects the devices' owners; `none` promises nothing"
    )
    epsilon: float = Field(8.0, gt=0, description="privacy budget of an owner, over all rounds")
    delta: float = Field(1e-6, gt=0, lt=1, description="chance that the budget does not hold")
    rounds_max: int = Field(32, ge=1, description="rounds after which federated learning ends")
    participations_max: int = Field(32, ge=1, description="rounds that one owner may be in")
    separation_min: int = Field(1, ge=1, description="an owner's rounds are so many apart or more")
    devices: int = Field(
        8, ge=1, description="devices of a round, each of another owner; their sum is divided by it"
    )
    devices_min: int | None = Field(
        None, ge=1, description="with fewer good deltas a round fails, unspent; default: `devices`"
    )
    norm_max: float = Field(1.0, gt=0, description="limit of one device's delta")
    device_noise: float = Field(
        0.0,
        ge=0,
        description="noise on each value of a delta before it leaves the device, in norms; the "
        "ledger counts the server's alone",
    )
    strategy: Literal["fedavg", "fedprox", "fedavgm", "fedadam"] = Field(
        "fedavg", description="how devices and server step"
    )
    proximal: float = Field(0.1, gt=0, description="FedProx' pull to the server's weights")
    server_learning_rate: float | None = Field(
        None, gt=0, description="default: 1, 0.3 for `fedavgm`, 0.001 for `fedadam`"
    )
    aggregation: Literal["mean", "median", "trimmed-mean", "krum"] = Field(
        "mean", description="all but the mean withstand poisoned devices, and cannot be private"
    )
    trim_share: float = Field(0.2, ge=0, lt=0.5, description="cut off at either end of the mean")
    poisoned_max: int = Field(1, ge=0, description="poisoned devices that Krum withstands")
    compression: Literal["none", "int8", "topk"] = Field(
        "none", description="of deltas: 8 bits a value, or the largest tenth of the values"
    )
    secure: bool = Field(
        False, description="secure aggregation: the server sees sums only; 4 exchanges a round"
    )
    epochs: int = Field(1, ge=1, description="passes over a device's examples in a round")
    batch_rows: int = Field(8, ge=1, description="examples of one local step")
    examples_max: int = Field(256, ge=1, description="examples of one device in a round")
    learning_rate: float = Field(1e-3, gt=0, description="of the devices' Adam")
    wait_s: float = Field(
        60.0, gt=0, description="how long a round waits until enough devices are online"
    )
    timeout_s: float = Field(300.0, gt=0, description="how long it waits for what they learn")
    grace_s: float = Field(2.0, ge=0, description="for stragglers, once there are enough")
    attempts_max: int = Field(
        2, ge=1, description="how often a round begins, where the agent dies in it"
    )
    every_s: float | None = Field(
        None, gt=0, description="ask for a round so often; default: when somebody asks"
    )

    @model_validator(mode="after")
    def _consistent(self) -> FederateSettings:
        if self.quorum > self.devices:
            raise ValueError("devices_min is more than devices")
        if self.aggregation != "mean" and self.mechanism != "none":
            raise ValueError(
                f"noise is scaled for a sum: the {self.aggregation} of devices has no bound that a "
                "privacy promise could rest on; use the mean, or mechanism none"
            )
        if self.secure and (self.aggregation != "mean" or self.compression != "none"):
            raise ValueError("secure sums are plain means without compression")
        if self.secure and self.device_noise:
            raise ValueError("noise of the devices is longer than what secure sums can hold")
        if self.secure and self.quorum < 3:
            raise ValueError("a secure sum of fewer than 3 devices hides little: raise devices_min")
        return self

    @property
    def quorum(self) -> int:
        """`devices_min`, or all of them."""
        return self.devices if self.devices_min is None else self.devices_min
