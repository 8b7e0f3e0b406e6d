"""Ids: fresh ones sort by their making, derived ones are the same at every replay."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from schemas import ids, limits


def test_fresh_ids_differ_and_sort_by_time() -> None:
    first = ids.new_id("prompt")
    time.sleep(0.002)
    later = [ids.new_id("prompt") for _ in range(1000)]
    assert len({first, *later}) == 1001
    assert all(first < other for other in later)
    assert first.startswith("prompt-")


@given(st.text(min_size=1, max_size=limits.ID_CHARS_MAX))
def test_what_derives_from_an_id_is_stable_and_within_limits(prompt_id: str) -> None:
    assert ids.generation_id(prompt_id) == ids.generation_id(prompt_id)
    assert len(ids.generation_id(prompt_id)) <= limits.ID_CHARS_MAX
    assert len(ids.passage_id(prompt_id, 10**9)) <= limits.PASSAGE_ID_CHARS_MAX
    assert 0 <= ids.seed(prompt_id) <= limits.SEED_MAX


@given(st.sets(st.text(min_size=1), min_size=2))
def test_different_prompts_have_different_generations_and_seeds(prompt_ids: set[str]) -> None:
    assert len({ids.generation_id(prompt_id) for prompt_id in prompt_ids}) == len(prompt_ids)
    assert len({ids.seed(prompt_id) for prompt_id in prompt_ids}) == len(prompt_ids)


def test_derived_ids_never_change_between_releases() -> None:
    """Topics outlive releases: another id for the same prompt would answer it a second time."""
    assert ids.generation_id("prompt-1") == "generation-7ed65932e8020d4d9f9f6a3685dd16ea"
    assert ids.seed("prompt-1") == 139_459_084_609_538
    assert ids.passage_id("docs/a.md", 3) == "docs/a.md#3"
    assert ids.record_id("headwater.prompts", 2, 17) == "headwater.prompts-2-17"
