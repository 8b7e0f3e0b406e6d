"""What wrk, a load tool that knows nothing of us, makes of the gateway; where it is installed."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from infra.commands.shell import err
from schemas.errors import WorkerFailed

# Connections, and seconds: two waves of answers at least.
LOADS: Final = {1: 10, 10: 15, 100: 30, 200: 60}
_TIMEOUT_S: Final = 120
_TOKENS: Final = 16
# wrk counts in microseconds. Each question is another one, so that no prefix is known already.
_SCRIPT: Final = """
local asked = 0
request = function()
  asked = asked + 1
  local body = string.format(
    '{"model":"headwater","stream":true,"max_tokens":%d,"retrieval":{"top_k":1},' ..
    '"messages":[{"role":"user","content":"What is the lake number %%d called?"}]}', asked)
  return wrk.format("POST", "/v1/chat/completions", {["Content-Type"]="application/json"}, body)
end
done = function(summary, latency)
  local failed = summary.errors
  io.write(string.format(
    '\\n{"answers":%%d,"answers_per_s":%%.3f,"whole_p50_ms":%%.1f,"whole_p99_ms":%%.1f,"failed":%%d}\\n',
    summary.requests, 1e6 * summary.requests / summary.duration,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    failed.connect + failed.read + failed.write + failed.status + failed.timeout))
end
"""


async def bench_wrk(port: int) -> dict[str, Any] | None:
    """Whole streamed answers by the number of connections; None without wrk.

    Raises WorkerFailed where wrk says nothing that can be read.
    """
    if shutil.which("wrk") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "chat.lua"
        script.write_text(_SCRIPT % _TOKENS)
        told = {}
        for streams, seconds in LOADS.items():
            told[str(streams)] = await _measured(script, streams, seconds, port)
            err.print(f"wrk, {streams}: {told[str(streams)]}", style="dim", markup=False)
        return told


async def _measured(script: Path, connections: int, seconds: int, port: int) -> dict[str, float]:
    process = await asyncio.create_subprocess_exec(
        *("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={_TIMEOUT_S}s"),
        *("-s", str(script), f"http://127.0.0.1:{port}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said = (await process.communicate())[0].decode(errors="replace")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    told = [line for line in said.splitlines() if line.startswith("{")]
    if not told:
        raise WorkerFailed(f"wrk failed: {said[-300:]}", "Run it by hand; see docs/GATEWAY.md.")
    figures: dict[str, float] = json.loads(told[-1])
    return figures
