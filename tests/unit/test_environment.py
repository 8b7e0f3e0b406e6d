"""Variables that look like settings and are none."""

from __future__ import annotations

import pytest

from infra.commands.settings import setting_names
from infra.environment import unknown_settings


def test_every_setting_of_every_part_is_known() -> None:
    assert unknown_settings(setting_names()) == []
    # pydantic reads names in any case.
    assert unknown_settings(name.lower() for name in setting_names()) == []
    assert unknown_settings(["HEADWATER_READY_FILE", "PATH", "HEADWATERS"]) == []


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("HEADWATER_KAFKA_BOOTSTRAPS", "HEADWATER_KAFKA_BOOTSTRAP"),
        ("HEADWATER_BOOTSTRAP", "HEADWATER_KAFKA_BOOTSTRAP"),
        ("HEADWATER_GENERATE_SLOT", "HEADWATER_GENERATE_SLOTS"),
        ("headwater_kafka_user_name", "HEADWATER_KAFKA_USERNAME"),
        ("HEADWATER_INDEX", "HEADWATER_RETRIEVE_INDEX"),
    ],
)
def test_a_misspelt_one_is_named_with_the_nearest(name: str, nearest: str) -> None:
    (unknown,) = unknown_settings([name])
    assert (unknown.name, unknown.nearest) == (name, nearest)
    assert f"did you mean {nearest}?" in str(unknown)


def test_what_is_like_none_gets_no_hint() -> None:
    (unknown,) = unknown_settings(["HEADWATER_ZZZ"])
    assert str(unknown) == "HEADWATER_ZZZ is no setting and has no effect"
