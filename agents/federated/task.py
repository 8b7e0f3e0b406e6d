"""What the two sides say to each other, and the settings of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal, cast

import msgspec
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.app import UserConfig as RunConfig
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS

from models.federation.layout import Flat
from models.federation.work import LocalWork
from schemas.errors import DataInvalid, SettingsInvalid

Aggregation = Literal["mean", "median", "trimmed-mean", "krum"]

# Of a secure sum: values between -norm_max and norm_max become so many whole numbers, of which
# the sum of 1,000 devices fits into 32 bits.
LEVELS: Final = 2**22
_ARRAYS, _CONFIG = "arrays", "config"


class RunSettings(msgspec.Struct, frozen=True, rename=lambda name: name.replace("_", "-")):
    """`[tool.flwr.app.config]` of pyproject.toml, where each is explained."""

    round_id: str
    adapter: Path
    result: Path
    nodes: str
    clients: int
    clients_min: int
    timeout_s: float
    grace_s: float
    rank: int
    alpha: float
    targets: str
    norm_max: float
    noise_multiplier: float
    epochs: int
    batch_rows: int
    examples_max: int
    optimizer: Literal["sgd", "adam"]
    learning_rate: float
    proximal: float
    tokens_max: int
    compression: Literal["none", "int8", "topk"]
    aggregation: Aggregation
    trim_share: float
    poisoned_max: int
    secure: bool

    def work(self, layout: str) -> LocalWork:
        """What each device is asked for."""
        fields = {
            name: getattr(self, name) for name in LocalWork.__struct_fields__ if name in _OURS
        }
        return LocalWork(layout=layout, targets=tuple(self.targets.split(",")), **fields)

    @property
    def node_ids(self) -> set[int]:
        """Whom to ask; empty: everybody who is online."""
        return {int(node) for node in self.nodes.split(",") if node}


_OURS = set(RunSettings.__struct_fields__) - {"targets"}


def run_settings(config: RunConfig) -> RunSettings:
    """The settings of a run. Raises SettingsInvalid for one that is missing or wrong."""
    try:
        # Flower gives whole numbers as int, whatever the default is.
        found = msgspec.convert(dict(config), RunSettings, strict=False, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise SettingsInvalid(
            f"The run's settings are wrong: {error}.", "See pyproject.toml."
        ) from error
    if not found.adapter.is_file() or not found.result.name:
        raise SettingsInvalid(
            "A run needs an adapter to start from and a folder for its result.",
            """Give --run-config 'adapter="…/adapter_model.safetensors" result="FOLDER"'.""",
        )
    return found


def _path(_kind: type, value: Any) -> Path:
    # The only type here that msgspec does not know.
    return Path(value)


def work_content(work: LocalWork, flat: Flat) -> RecordDict:
    """The server's question to a device: the adapter in one array, and the work in JSON."""
    return RecordDict(
        {
            _ARRAYS: ArrayRecord({"adapter": Array(flat)}),
            _CONFIG: ConfigRecord({"work": msgspec.json.encode(work)}),
        }
    )


def work_message(content: RecordDict, node: int) -> Message:
    """The question to one device."""
    return Message(content, dst_node_id=node, message_type="train")


def is_secure(message: Message) -> bool:
    """Whether a device is asked as part of a secure sum."""
    return RECORD_KEY_CONFIGS in message.content.config_records


def work_of(message: Message) -> bytes:
    """The work in JSON."""
    return cast(bytes, message.content.config_records[_CONFIG]["work"])


def adapter_of(message: Message) -> bytes:
    """The adapter's float32 values."""
    return message.content.array_records[_ARRAYS]["adapter"].numpy().astype("<f4").tobytes()


def reply_content(delta: bytes) -> RecordDict:
    """The device's answer."""
    return RecordDict({_ARRAYS: ArrayRecord({"delta": Array(np.frombuffer(delta, np.uint8))})})


def delta_of(reply: Message) -> bytes:
    """The packed delta. Raises DataInvalid for a reply that is none."""
    try:
        found: Any = reply.content.array_records[_ARRAYS]["delta"].numpy()
    except (KeyError, ValueError, TypeError) as error:
        raise DataInvalid("A device's reply holds no delta.", "Run one version.") from error
    if found.dtype != np.uint8 or found.ndim != 1:
        raise DataInvalid("A device's delta is no row of bytes.", "Run one version.")
    return cast(bytes, found.tobytes())
