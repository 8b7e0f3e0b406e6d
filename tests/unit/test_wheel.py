"""The wheel: the light SDK and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What uv and pip say when the build backend itself cannot be had, as without a network.
NO_BACKEND = ("build-system.requires", "Failed to fetch", "No matching distribution found")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    command = (
        [uv, "build", "--wheel", "--out-dir", str(folder), str(ROOT)]
        if uv
        else [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", str(folder), str(ROOT)]
    )
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240)
    if ran.returncode and any(text in ran.stderr for text in NO_BACKEND):
        pytest.skip(f"the build backend cannot be fetched: {ran.stderr.strip()[-300:]}")
    assert ran.returncode == 0, ran.stderr
    (found,) = folder.glob("headwater-*.whl")
    return found


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    """The files in the wheel, without its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_it_holds_the_sdk_and_nothing_else(names: set[str]) -> None:
    expected = {"headwater.py"}
    for package in ("schemas", "streams"):
        for pattern in ("*.py", "*.json", "*.sql"):
            expected |= {str(p.relative_to(ROOT)) for p in (ROOT / package).rglob(pattern)}
    assert names == expected
    assert "schemas/contracts/prompts.schema.json" in names


def test_it_needs_three_packages(metadata: Message) -> None:
    needed = [text for text in metadata.get_all("Requires-Dist", []) if "extra ==" not in text]
    assert {text.split(">=")[0] for text in needed} == {
        "confluent-kafka",
        "msgspec",
        "pydantic-settings",
    }


def test_it_can_be_used_alone(wheel: Path, tmp_path: Path) -> None:
    script = (
        "import headwater; from schemas import contracts;"
        "print(headwater.__file__, contracts.unexported())"
    )
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == f"{tmp_path / 'headwater.py'} []"
