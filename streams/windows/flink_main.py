"""Runs statements in Flink. Started by the Python of Flink's own environment, never imported.

A JSON object comes on standard input: `config` for Flink, `statements`, the last of which is the
job. It ends when the job ends; standard input keeps secrets out of files and command lines.
"""

import json
import os
import sys
from pathlib import Path

from pyflink.common import Configuration  # type: ignore[import-not-found, unused-ignore]
from pyflink.table import (  # type: ignore[import-not-found, unused-ignore]
    EnvironmentSettings,
    TableEnvironment,
)


def main() -> None:
    """Submit the job, say that it runs, and wait for its end."""
    order = json.load(sys.stdin)
    config = Configuration()
    for name, value in order["config"].items():
        config.set_string(name, value)
    environment = TableEnvironment.create(
        EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(config).build()
    )
    *tables, job = order["statements"]
    for statement in tables:
        environment.execute_sql(statement)
    running = environment.execute_sql(job)
    ready_file = os.environ.get("HEADWATER_READY_FILE")
    if ready_file:
        Path(ready_file).touch()
    running.wait()


if __name__ == "__main__":
    main()
