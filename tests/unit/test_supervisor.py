"""The supervisor, on real processes: small scripts that start, die and refuse to end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from infra.log_files import last_lines, limit_size
from infra.part import Part
from infra.start_order import start_order
from infra.supervisor import Notice, Supervisor
from schemas.errors import SettingsInvalid, WorkerFailed

READY = "import os, pathlib, time; pathlib.Path(os.environ['HEADWATER_READY_FILE']).touch();"
STAY = READY + "time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + STAY
DEADLINE_S = 10.0


def python(script: str) -> list[str]:
    return [sys.executable, "-S", "-c", script]


def with_child(pid_file: Path, script: str) -> list[str]:
    """Run a script that first starts a child of its own, and writes down the child's id."""
    child = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
    start = f"import subprocess; child = subprocess.Popen({child!r});"
    note = f"open({str(pid_file)!r}, 'w').write(str(child.pid));"
    return python(start + note + script)


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that ended but is not yet waited for does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - processes send no event
            await asyncio.sleep(0.02)


async def nothing() -> str:
    return "done"


@pytest.mark.asyncio
async def test_parts_start_when_what_they_need_is_ready_and_stop_in_reverse(tmp_path: Path) -> None:
    notices: list[Notice] = []
    parts = [
        Part("worker", python(STAY), after=("broker",)),
        Part("broker", python("import time; time.sleep(0.3);" + STAY)),
    ]
    result = await Supervisor(parts, tmp_path, notices.append).run(nothing)
    assert result == "done"
    assert [(notice.part, notice.what) for notice in notices] == [
        ("broker", "started"),
        ("broker", "ready"),
        ("worker", "started"),
        ("worker", "ready"),
        ("worker", "stopped"),
        ("broker", "stopped"),
    ]


@pytest.mark.asyncio
async def test_a_killed_part_comes_back_and_is_ready_again(tmp_path: Path) -> None:
    notices: list[Notice] = []
    supervisor = Supervisor([Part("worker", python(STAY))], tmp_path, notices.append)

    async def kill_it() -> tuple[int, int]:
        first = supervisor.pids()["worker"]
        os.kill(first, signal.SIGKILL)
        await until(lambda: [notice.what for notice in notices].count("ready") == 2)
        return first, supervisor.pids()["worker"]

    pids = await supervisor.run(kill_it)
    assert pids is not None
    assert pids[0] != pids[1]
    assert not any(map(alive, pids))
    assert "status -9" in next(notice.detail for notice in notices if notice.what == "died")


@pytest.mark.asyncio
async def test_a_part_that_keeps_dying_is_given_up_with_its_last_words(tmp_path: Path) -> None:
    script = READY + "time.sleep(0.2); print('the disk is on fire'); raise SystemExit(3)"
    part = Part("worker", python(script), remedy=lambda log: f"Read this: {len(log)} characters.")
    with pytest.raises(WorkerFailed, match=r"status 3, 2 times[^$]*the disk is on fire") as caught:
        await Supervisor([part], tmp_path, deaths_max=1).run(asyncio.Event().wait)
    assert caught.value.remedy.startswith("Read this:")


@pytest.mark.asyncio
async def test_a_part_that_never_gets_ready_stops_the_others(tmp_path: Path) -> None:
    started: list[Notice] = []
    parts = [
        Part("broker", python(STAY)),
        Part("worker", python("raise SystemExit('no model')"), after=("broker",)),
    ]
    with pytest.raises(WorkerFailed, match=r"status 1 before it was ready[^$]*no model"):
        await Supervisor(parts, tmp_path, started.append).run(nothing)
    assert started[-1] == Notice("broker", "stopped")


@pytest.mark.asyncio
@pytest.mark.parametrize("script", ["raise SystemExit('ε is -1')", READY + "raise SystemExit('ε')"])
async def test_a_part_that_is_not_needed_is_left_down(tmp_path: Path, script: str) -> None:
    notices: list[Notice] = []
    parts = [
        Part("learn", python(script), needed=False),
        Part("worker", python(STAY), after=("learn",)),
    ]

    async def until_left_down() -> bool:
        await until(lambda: "left down" in [notice.what for notice in notices])
        return alive(supervisor.pids()["worker"])

    supervisor = Supervisor(parts, tmp_path, notices.append, deaths_max=1)
    assert await supervisor.run(until_left_down)
    (left,) = [notice for notice in notices if notice.what == "left down"]
    assert left.part == "learn"
    assert "ε" in left.detail


@pytest.mark.asyncio
async def test_a_part_that_is_not_ready_in_time_fails(tmp_path: Path) -> None:
    part = Part("worker", python("import time; time.sleep(60)"), ready_deadline_s=0.3)
    with pytest.raises(WorkerFailed, match=r"not ready within 0\.3 s"):
        await Supervisor([part], tmp_path).run(nothing)


@pytest.mark.asyncio
async def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkerFailed, match="no-such-program cannot be run"):
        await Supervisor([Part("worker", ["no-such-program"])], tmp_path).run(nothing)


@pytest.mark.asyncio
async def test_a_part_that_runs_once_may_end(tmp_path: Path) -> None:
    notices: list[Notice] = []
    parts = [
        Part("topics", python("pass"), restart=False),
        Part("worker", python(STAY), after=("topics",)),
    ]
    await Supervisor(parts, tmp_path, notices.append).run(nothing)
    assert Notice("topics", "finished") in notices


@pytest.mark.asyncio
async def test_a_part_that_ignores_its_end_is_killed_after_its_grace(tmp_path: Path) -> None:
    supervisor = Supervisor([Part("worker", python(STUBBORN), grace_s=0.3)], tmp_path)
    await supervisor.run(nothing)
    assert not alive(supervisor.pids()["worker"])


@pytest.mark.asyncio
async def test_children_of_a_part_end_with_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "child"
    await Supervisor([Part("worker", with_child(pid_file, STAY))], tmp_path).run(nothing)
    assert not alive(int(pid_file.read_text("utf-8")))


@pytest.mark.asyncio
async def test_a_signal_ends_the_run_and_a_second_one_ends_it_at_once(tmp_path: Path) -> None:
    supervisor = Supervisor([Part("worker", python(STUBBORN), grace_s=60)], tmp_path)

    async def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        asyncio.get_running_loop().call_later(0.2, os.kill, os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    began_s = time.monotonic()
    await supervisor.run(interrupt)
    assert time.monotonic() - began_s < DEADLINE_S
    assert not alive(supervisor.pids()["worker"])


@pytest.mark.asyncio
async def test_nothing_outlives_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "child"
    command = with_child(pid_file, STUBBORN)
    program = (
        "import asyncio, pathlib; from infra.part import Part; from infra.supervisor import *\n"
        f"parts = [Part('worker', {command!r})]\n"
        f"supervisor = Supervisor(parts, pathlib.Path({str(tmp_path)!r}))\n"
        "async def work():\n"
        "    print(supervisor.pids()['worker'], flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(supervisor.run(work))\n"
    )
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=subprocess.PIPE
    )
    assert supervisor.stdout is not None
    worker = int(await supervisor.stdout.readline())
    child = int(pid_file.read_text("utf-8"))
    assert alive(worker) and alive(child)
    supervisor.kill()
    await supervisor.wait()
    await until(lambda: not alive(worker) and not alive(child))


def test_a_log_is_moved_aside_when_it_grows_too_large(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"first\n" * 10)
        limit_size(log, bytes_max=20)
        writer.write(b"second\nthird\n")
    assert log.read_text("utf-8") == "second\nthird\n"
    assert last_lines(log, lines_max=1) == "third"
    assert (tmp_path / "worker.log.1").read_text("utf-8") == "first\n" * 10


def test_the_stack_frames_of_a_jvm_are_not_its_last_words(tmp_path: Path) -> None:
    log = tmp_path / "kafka.log"
    frames = "\tat kafka.Kafka$.main(Kafka.scala:97)\n" * 30
    log.write_text(
        f"ERROR Got exception\njava.io.IOException: File too large\n{frames}\t... 11 more\n"
    )
    assert last_lines(log) == "ERROR Got exception\njava.io.IOException: File too large"


def test_the_last_words_begin_at_the_error_and_not_at_the_cleaning_up(tmp_path: Path) -> None:
    log = tmp_path / "join.log"
    stopping = "[INFO] [^Worker]: Stopping...\n" * 30
    log.write_text(f"[INFO] ready\n[ERROR] no such package\nTraceback\n{stopping}")
    assert last_lines(log, lines_max=3).splitlines() == [
        "[ERROR] no such package",
        "Traceback",
        "[INFO] [^Worker]: Stopping...",
    ]


@pytest.mark.parametrize(
    "needs", [{"a": ("b",), "b": ("a",)}, {"a": ("elsewhere",)}], ids=["a cycle", "unknown"]
)
def test_needs_that_cannot_be_met_are_refused(needs: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(SettingsInvalid):
        start_order([Part(name, ["true"], after=after) for name, after in needs.items()])
