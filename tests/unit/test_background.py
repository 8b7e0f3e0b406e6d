"""Processes that yield to others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Empty where a control group for the CPU takes the place of autogroups.
AUTOGROUP = Path("/proc/self/autogroup")
AUTOGROUPS = AUTOGROUP.exists() and AUTOGROUP.read_text() != ""


def run_nicely(then: str, leads: bool) -> str:
    """What a process prints that yields to others, leader of a session or not."""
    return subprocess.run(
        [sys.executable, "-c", f"from models.background import be_nice\nbe_nice(7)\n{then}"],
        start_new_session=leads,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.parametrize("leads", [True, False])
def test_a_process_is_nice(leads: bool) -> None:
    assert int(run_nicely("import os\nprint(os.nice(0))", leads)) == min(os.nice(0) + 7, 19)


@pytest.mark.skipif(not AUTOGROUPS, reason="Linux with autogroups only")
@pytest.mark.parametrize("leads", [True, False])
def test_the_session_that_a_process_leads_is_as_nice(leads: bool) -> None:
    ours = AUTOGROUP.read_text().split()[-1]
    group = run_nicely(f"print(open('{AUTOGROUP}').read().split()[-1])", leads).strip()
    assert group == ("7" if leads else ours)
