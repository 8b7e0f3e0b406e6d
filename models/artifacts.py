"""Adapters on their way: a folder in PEFT's layout behind a URI, and verified copies in a cache.

A record names the folder and the sha256 of its weights, and newer records that of its configuration
as well. Only those two files of it are read, by
fsspec, and nothing is used that was not verified on this machine: law 7.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import fsspec  # type: ignore[import-untyped]

from models.learning.adapter_layout import CONFIG_FILE, WEIGHTS_FILE
from schemas.errors import ArtifactInvalid, ArtifactUnavailable, HeadwaterError

WEIGHTS_BYTES_MAX: Final = 1 << 30
CONFIG_BYTES_MAX: Final = 64 * 1024
FETCH_S_MAX: Final = 300.0
# Copies that a cache keeps for rollbacks and restarts.
COPIES_MAX: Final = 32
_BLOCK_BYTES: Final = 1 << 20
# Where both sides can write and read. None of them runs anything that a URI says.
_PROTOCOLS: Final = frozenset(
    ["file", "memory", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "hdfs"]
)


def fetch(
    uri: str,
    sha256: str,
    cache: Path,
    config_sha256: str | None = None,
    bytes_max: int = WEIGHTS_BYTES_MAX,
) -> Path:
    """A local folder with the adapter at `uri`, whose weights have this sha256, and whose
    configuration has the other one where it is known.

    It is named by content and address, and there as a whole or not at all. One that is there
    already is verified again and needs no network. Blocks for up to `FETCH_S_MAX` seconds, or as
    long as the file system does.
    Raises ArtifactInvalid for what will never do, ArtifactUnavailable for what may do later.
    """
    files, path = _opened(uri)
    # With the configuration that is asked for: a record that names a wrong one must not replace
    # the copy that another record's adapter is served from.
    place = f"{uri} {config_sha256 or ''}".encode()
    address = hashlib.blake2b(place, digest_size=8).hexdigest()
    copy = cache / f"{sha256}-{address}"
    if copy.exists():
        if _sha256_of(copy / WEIGHTS_FILE) == sha256 and (
            config_sha256 in (None, sha256_of_config(copy))
        ):
            copy.touch()
            return copy
        shutil.rmtree(copy, ignore_errors=True)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".fetching-", dir=cache))
    except OSError as error:
        raise _unavailable(uri, error) from error
    try:
        config, weights = f"{path}/{CONFIG_FILE}", f"{path}/{WEIGHTS_FILE}"
        found = _copy(files, uri, config, partial / CONFIG_FILE, CONFIG_BYTES_MAX)
        _check("configuration", uri, found, config_sha256 or found)
        found = _copy(files, uri, weights, partial / WEIGHTS_FILE, bytes_max)
        _check("weights", uri, found, sha256)
        _move(partial, copy)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return copy


def store(folder: Path, base_uri: str, name: str) -> str:
    """Copies an adapter's two files to `name` under `base_uri`; returns the URI of that folder.

    The weights come last: who finds them finds all. Raises ArtifactInvalid for an address that
    cannot be, ArtifactUnavailable when writing fails.
    """
    base = base_uri if "://" in base_uri else str(Path(base_uri).expanduser().absolute())
    uri = f"{base.rstrip('/')}/{name}"
    files, path = _opened(uri)
    try:
        files.makedirs(path, exist_ok=True)
        for file in (CONFIG_FILE, WEIGHTS_FILE):
            files.put_file(str(folder / file), f"{path}/{file}")
        return str(files.unstrip_protocol(path))
    except Exception as error:
        raise _unavailable(uri, error) from error


def stored(folder: Path, base_uri: str | None) -> str:
    """The URI of an adapter where others can read it: copied under `base_uri`, or where it is.

    Raises as `store`.
    """
    return folder.as_uri() if base_uri is None else store(folder, base_uri, folder.name)


def sha256_of_config(folder: Path) -> str | None:
    """Of an adapter's configuration (hexadecimal): rank and alpha, and with them the scaling of
    its weights. None where there is no such file."""
    return _sha256_of(folder / CONFIG_FILE)


def prune(cache: Path, used: Collection[Path], copies_max: int = COPIES_MAX) -> None:
    """Removes the copies that were longest unused, but none of `used`; and what fetches left."""
    copies = [path for path in cache.glob("[0-9a-f]*-*") if path not in used]
    aged = sorted(copies, key=_used_s)
    stale_s = time.time() - 2 * FETCH_S_MAX
    left = [path for path in cache.glob(".fetching-*") if _used_s(path) < stale_s]
    for path in [*aged[: max(0, len(copies) - copies_max)], *left]:
        shutil.rmtree(path, ignore_errors=True)


def _opened(uri: str) -> tuple[Any, str]:
    """The file system of a URI and the path there, without a slash at its end."""
    protocol, mark, rest = uri.partition("://")
    path = rest if mark else uri
    protocol = protocol if mark else "file"
    relative = protocol == "file" and not path.startswith("/")
    if protocol not in _PROTOCOLS or "::" in uri or relative or ".." in path.split("/"):
        raise ArtifactInvalid(
            f"{uri[:300]!r} is no address of an adapter.",
            "Name a folder by an absolute path or a URI such as s3://bucket/folder, without '..'.",
        )
    try:
        files, found = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise ArtifactInvalid(
            f"This machine cannot read {uri[:300]}: {error}",
            "Install fsspec's package for it, such as s3fs for s3://.",
        ) from error
    except Exception as error:
        raise _unavailable(uri, error) from error
    return files, str(found).rstrip("/")


def _copy(files: Any, uri: str, source: str, target: Path, bytes_max: int) -> str:
    """Copies one file and returns its sha256 (hexadecimal)."""
    deadline_s = time.monotonic() + FETCH_S_MAX
    digest = hashlib.sha256()
    size = 0
    try:
        if files.info(source)["type"] != "file":
            raise FileNotFoundError(f"{source} is no file")
        with files.open(source, "rb") as reader, target.open("wb") as writer:
            while block := reader.read(_BLOCK_BYTES):
                size += len(block)
                if size > bytes_max:
                    raise _too_large(uri, source, bytes_max)
                if time.monotonic() > deadline_s:
                    raise TimeoutError(f"not read within {FETCH_S_MAX:g} s")
                digest.update(block)
                writer.write(block)
    except HeadwaterError:
        raise
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise ArtifactInvalid(
            f"The adapter at {uri} has no {source.rpartition('/')[2]}: {error}",
            "Store it there; then publish the update again.",
        ) from error
    except Exception as error:
        # Each file system has errors of its own for a network that fails.
        raise _unavailable(uri, error) from error
    return digest.hexdigest()


def _check(what: str, uri: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise ArtifactInvalid(
            f"The {what} at {uri}: sha256 {found}, not {wanted}.",
            "Publish the update again with the file that it names, under a new version.",
        )


def _move(partial: Path, copy: Path) -> None:
    partial.chmod(0o755)
    try:
        partial.rename(copy)
    except OSError as error:
        # Another worker that shares the cache was first: its copy is verified as well.
        if not copy.exists():
            raise _unavailable(str(copy), error) from error


def _sha256_of(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _used_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        # Another worker has removed it.
        return 0.0


def _too_large(uri: str, source: str, bytes_max: int) -> ArtifactInvalid:
    return ArtifactInvalid(
        f"{source.rpartition('/')[2]} at {uri} has over {bytes_max:,} bytes.",
        "Train an adapter of a lower rank or of fewer modules.",
    )


def _unavailable(uri: str, error: Exception) -> ArtifactUnavailable:
    return ArtifactUnavailable(
        f"{uri} cannot be reached: {type(error).__name__}: {error}",
        "Check the network, the credentials and the free space.",
    )
