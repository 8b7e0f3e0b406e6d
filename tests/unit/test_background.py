"""Processes that yield to others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

AUTOGROUP = Path("/proc/self/autogroup")
SCRIPT = """
import os
from pathlib import Path
from models.background import be_nice
be_nice(7)
print(os.nice(0), Path("/proc/self/autogroup").read_text().split()[-1])
"""


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="Linux with autogroups only")
@pytest.mark.parametrize("leads", [True, False])
def test_a_process_is_nice_and_so_is_the_session_that_it_leads(leads: bool) -> None:
    ours = AUTOGROUP.read_text().split()[-1]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        start_new_session=leads,
        capture_output=True,
        text=True,
        check=True,
    )
    nice, group = done.stdout.split()
    assert int(nice) == min(os.nice(0) + 7, 19)
    assert group == ("7" if leads else ours)
