"""The checks of tests/conftest.py, on tests that leak on purpose."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
LEAKS = """
import asyncio, os, subprocess, sys, threading, time
import pytest

def test_a_thread():
    threading.Thread(target=time.sleep, args=(1.5,)).start()

def test_a_thread_of_ours():
    threading.Thread(target=time.sleep, args=(1.5,), name="headwater-x", daemon=True).start()

def test_a_process():
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1.5)"])

def test_a_setting():
    os.environ["HEADWATER_KAFKA_BOOTSTRAP"] = "elsewhere:1"

@pytest.mark.asyncio
async def test_a_task():
    asyncio.create_task(asyncio.sleep(1.5))
"""
CLEAN = """
import asyncio, os, subprocess, sys, threading, time
import pytest

@pytest.fixture(scope="module", autouse=True)
def shared_process():
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield
        process.kill()

def test_a_setting_undone(monkeypatch):
    monkeypatch.setenv("HEADWATER_KAFKA_BOOTSTRAP", "elsewhere:1")

def test_a_thread_joined():
    thread = threading.Thread(target=time.sleep, args=(0.01,))
    thread.start()
    thread.join()

@pytest.mark.asyncio
async def test_work_in_a_thread_and_a_task():
    await asyncio.to_thread(time.sleep, 0.01)
    await asyncio.create_task(asyncio.sleep(0.01))
"""


@pytest.mark.parametrize(
    ("source", "outcome"),
    [(CLEAN, "3 passed"), (LEAKS, "5 passed, 5 errors")],
    ids=["clean", "leaks"],
)
def test_what_is_left_behind_fails_the_test(tmp_path: Path, source: str, outcome: str) -> None:
    (tmp_path / "conftest.py").write_text(
        CONFTEST.read_text().replace("GRACE_S = 3", "GRACE_S = 0")
    )
    (tmp_path / "test_sample.py").write_text(source)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTEST_ADDOPTS": ""},
        cwd=tmp_path,
        timeout=60,
    )
    assert outcome in ran.stdout, ran.stdout
