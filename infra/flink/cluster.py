"""A Flink cluster's REST interface: whether the job runs there already."""

from __future__ import annotations

import argparse
import json
import time
import urllib.request
from typing import Any, Final

from schemas.errors import WorkerFailed

# States in which a job of that name is still there, or will be again.
_ALIVE: Final = {"INITIALIZING", "CREATED", "RUNNING", "RESTARTING", "FAILING", "RECONCILING"}
_REQUEST_TIMEOUT_S: Final = 10.0
_START_DEADLINE_S: Final = 120.0
_POLL_INTERVAL_S: Final = 2.0


def wait_for_cluster(cluster: str) -> None:
    """Return once the cluster at host:port answers; raises WorkerFailed."""
    deadline_s = time.monotonic() + _START_DEADLINE_S
    while not _answers(cluster):
        if time.monotonic() > deadline_s:
            raise WorkerFailed(
                f"No Flink answers at {cluster}.",
                "Is HEADWATER_ANALYTICS_CLUSTER the address of its REST interface?",
            )
        time.sleep(_POLL_INTERVAL_S)


def job_runs(cluster: str, name: str) -> bool:
    """Whether a job of this name is alive. Raises OSError where the cluster does not answer."""
    with urllib.request.urlopen(
        f"http://{cluster}/jobs/overview", timeout=_REQUEST_TIMEOUT_S
    ) as answer:
        jobs = json.load(answer)["jobs"]
    return any(job["name"] == name and job["state"] in _ALIVE for job in jobs)


def follow(cluster: str, name: str) -> None:
    """Return when the job is not there any more; a cluster that is away for a moment is not its
    end, for with high availability the job comes back with it."""
    while True:
        time.sleep(_POLL_INTERVAL_S)
        try:
            if not job_runs(cluster, name):
                return
        except OSError:
            wait_for_cluster(cluster)


def _answers(cluster: str) -> bool:
    return _overview(cluster) is not None


def _overview(cluster: str) -> dict[str, Any] | None:
    try:
        with urllib.request.urlopen(
            f"http://{cluster}/overview", timeout=_REQUEST_TIMEOUT_S
        ) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except OSError:
        return None


def main() -> int:
    """A container's health check: status 0 where the cluster answers, or has slots."""
    parser = argparse.ArgumentParser(prog="python -m infra.flink.cluster", description=__doc__)
    parser.add_argument("cluster", help="host:port of its REST interface")
    parser.add_argument("--slots", action="store_true", help="whether it has slots, too")
    asked = parser.parse_args()
    overview = _overview(asked.cluster)
    return int(overview is None or (asked.slots and not overview["slots-total"]))


if __name__ == "__main__":
    raise SystemExit(main())
