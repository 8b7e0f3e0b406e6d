"""Adapters fetched and stored: verified copies, clean refusals, a cache that stays small."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import fsspec
import pytest
from tiny_adapter import write_tiny_adapter

from models import artifacts
from models.artifacts import fetch, prune, sha256_of_config, store
from models.learning.adapter_files import CONFIG_FILE, WEIGHTS_FILE, read_adapter
from schemas.errors import ArtifactInvalid, ArtifactUnavailable


@pytest.fixture
def adapter(tmp_path: Path) -> tuple[Path, str]:
    """A folder with an adapter, and the sha256 of its weights."""
    folder = tmp_path / "v1"
    return folder, write_tiny_adapter(folder, seed=1)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.mark.parametrize("form", ["{}", "file://{}", "{}/"])
def test_a_folder_is_copied_and_read(adapter: tuple[Path, str], cache: Path, form: str) -> None:
    folder, sha256 = adapter
    copy = fetch(form.format(folder), sha256, cache)
    assert copy.name.startswith(sha256)
    assert read_adapter(copy)[0].keys() == read_adapter(folder)[0].keys()
    assert [path.name for path in cache.iterdir()] == [copy.name]


def test_what_is_stored_somewhere_else_comes_back(adapter: tuple[Path, str], cache: Path) -> None:
    folder, sha256 = adapter
    uri = store(folder, "memory://bucket/adapters/", "tone/v1")
    assert uri == "memory:///bucket/adapters/tone/v1"
    copy = fetch(uri, sha256, cache)
    assert (copy / WEIGHTS_FILE).read_bytes() == (folder / WEIGHTS_FILE).read_bytes()
    local = store(folder, str(cache.parent / "store"), "v1")
    assert local == f"file://{cache.parent}/store/v1"
    assert fetch(local, sha256, cache) != copy


def test_a_configuration_that_was_changed_is_refused(
    adapter: tuple[Path, str], cache: Path
) -> None:
    folder, sha256 = adapter
    config_sha256 = sha256_of_config(folder)
    copy = fetch(str(folder), sha256, cache, config_sha256)
    assert sha256_of_config(copy) == config_sha256
    config = folder / CONFIG_FILE
    config.write_text(config.read_text().replace('"lora_alpha": ', '"lora_alpha": 9'))
    # The copy still has what was published; one that was changed as well is no better.
    assert fetch(str(folder), sha256, cache, config_sha256) == copy
    (copy / CONFIG_FILE).write_bytes(config.read_bytes())
    with pytest.raises(ArtifactInvalid, match=r"The configuration at .* not "):
        fetch(str(folder), sha256, cache, config_sha256)
    # Older records say nothing of it.
    assert read_adapter(fetch(str(folder), sha256, cache))[1].alpha > 90


def test_a_record_that_names_a_wrong_configuration_leaves_the_copy_of_another_one(
    adapter: tuple[Path, str], cache: Path
) -> None:
    folder, sha256 = adapter
    copy = fetch(str(folder), sha256, cache, sha256_of_config(folder))
    with pytest.raises(ArtifactInvalid, match=r"The configuration at .* not "):
        fetch(str(folder), sha256, cache, "0" * 64)
    assert (copy / CONFIG_FILE).read_bytes() == (folder / CONFIG_FILE).read_bytes()


def test_a_copy_that_is_there_needs_no_source(adapter: tuple[Path, str], cache: Path) -> None:
    folder, sha256 = adapter
    copy = fetch(str(folder), sha256, cache)
    folder.rename(folder.parent / "gone")
    assert fetch(str(folder), sha256, cache) == copy


def test_a_copy_that_was_damaged_is_fetched_anew(adapter: tuple[Path, str], cache: Path) -> None:
    folder, sha256 = adapter
    copy = fetch(str(folder), sha256, cache)
    (copy / WEIGHTS_FILE).write_bytes(b"half")
    assert fetch(str(folder), sha256, cache) == copy
    assert (copy / WEIGHTS_FILE).read_bytes() == (folder / WEIGHTS_FILE).read_bytes()


def test_other_weights_than_promised_are_refused(adapter: tuple[Path, str], cache: Path) -> None:
    with pytest.raises(ArtifactInvalid, match=f"sha256 {adapter[1]}, not 0000"):
        fetch(str(adapter[0]), "0" * 64, cache)
    assert list(cache.iterdir()) == []


def test_files_over_their_limits_are_refused(adapter: tuple[Path, str], cache: Path) -> None:
    folder, sha256 = adapter
    with pytest.raises(ArtifactInvalid, match=f"{WEIGHTS_FILE} .* over 100 bytes"):
        fetch(str(folder), sha256, cache, bytes_max=100)
    (folder / CONFIG_FILE).write_bytes(b" " * (artifacts.CONFIG_BYTES_MAX + 1))
    with pytest.raises(ArtifactInvalid, match=f"{CONFIG_FILE} .* over 65,536 bytes"):
        fetch(str(folder), sha256, cache)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("missing", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_missing_file_is_named(adapter: tuple[Path, str], cache: Path, missing: str) -> None:
    (adapter[0] / missing).unlink()
    with pytest.raises(ArtifactInvalid, match=f"has no {missing}"):
        fetch(str(adapter[0]), adapter[1], cache)


def test_a_pipe_is_no_file(adapter: tuple[Path, str], cache: Path) -> None:
    (adapter[0] / WEIGHTS_FILE).unlink()
    os.mkfifo(adapter[0] / WEIGHTS_FILE)
    with pytest.raises(ArtifactInvalid, match="is no file"):
        fetch(str(adapter[0]), adapter[1], cache)


@pytest.mark.parametrize(
    "uri",
    [
        "relative/folder",
        "file://relative/folder",
        "/adapters/../etc",
        "s3://bucket/../other",
        "simplecache::s3://bucket/v1",
        "https://example.org/v1",
        "",
    ],
)
def test_an_address_that_may_not_be_is_refused(cache: Path, uri: str) -> None:
    with pytest.raises(ArtifactInvalid, match="is no address of an adapter"):
        fetch(uri, "0" * 64, cache)


def test_a_missing_package_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ArtifactInvalid, match="s3fs"):
        fetch("s3://bucket/v1", "0" * 64, cache)


class Unplugged(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """A file system whose network fails."""

    protocol = "gs"

    def info(self, path: str, **options: object) -> dict[str, object]:
        raise ConnectionResetError("the cable is out")


def test_a_network_that_fails_may_work_later(cache: Path) -> None:
    fsspec.register_implementation("gs", Unplugged, clobber=True)
    with pytest.raises(ArtifactUnavailable, match="the cable is out"):
        fetch("gs://bucket/v1", "0" * 64, cache)
    assert list(cache.iterdir()) == []


def test_only_the_latest_copies_and_those_in_use_are_kept(tmp_path: Path, cache: Path) -> None:
    copies = []
    for seed in range(5):
        folder = tmp_path / f"v{seed}"
        copies.append(fetch(str(folder), write_tiny_adapter(folder, seed), cache))
        os.utime(copies[-1], (seed, seed))
    (cache / ".fetching-killed").mkdir()
    os.utime(cache / ".fetching-killed", (1, 1))
    (cache / ".fetching-now").mkdir()
    prune(cache, used={copies[0]}, copies_max=2)
    kept = {copies[0], copies[3], copies[4], cache / ".fetching-now"}
    assert set(cache.iterdir()) == kept
