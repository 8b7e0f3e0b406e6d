"""`headwater edge` on a device: its key, its examples, taking part, and what left it."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from agents.edge.settings import EdgeSettings
from infra.commands.shell import AsJson, err, out, print_json, run
from schemas.errors import DataInvalid, SettingsInvalid
from streams.settings import load

edge_app = typer.Typer(
    help="Devices that take part in federated rounds, and who admits them.", no_args_is_help=True
)

Data = Annotated[
    Path | None, typer.Option(help="The device's folder; default: HEADWATER_EDGE_FOLDER.")
]
# A SuperNode that was killed is refused for a minute: its supervisor must not give up.
_DEATHS_MAX = 1_000


@edge_app.command("key")
def make_device_key(data: Data = None) -> None:
    """Make this device's key, if it has none; print where the half for the operator is."""
    # Imported late: cryptography.
    from agents.edge.keys import make_key
    from infra.federation import KEY_FILE

    public = make_key(_folder(data) / KEY_FILE)
    out.print(str(public), markup=False)
    err.print("Give this file to the operator, who runs `headwater edge admit` with it.")


@edge_app.command("add-example")
def add_example(
    prompt: Annotated[str, typer.Argument(help="What was asked.")],
    answer: Annotated[str, typer.Argument(help="The answer to learn.")],
    data: Data = None,
) -> None:
    """Keep one question with its good answer on this device, encrypted."""
    from agents.edge.example_files import ExampleLine, training_example
    from agents.edge.store import ExampleStore

    store = ExampleStore(_made(data))
    try:
        new = store.add(training_example(ExampleLine(prompt=prompt, answer=answer)))
        out.print(f"{'Kept' if new else 'Known already'}; {store.count()} examples in all.")
    finally:
        store.close()


@edge_app.command("import")
def import_examples(
    files: Annotated[list[Path], typer.Argument(help="JSONL: prompt and answer a line.")],
    data: Data = None,
) -> None:
    """Keep the examples of files on this device, encrypted. The files stay as they are."""
    from agents.edge.example_files import read_examples
    from agents.edge.store import ExampleStore

    store = ExampleStore(_made(data))
    try:
        found = [example for path in files for example in read_examples(path)]
        new = sum(store.add(example) for example in found)
        out.print(f"{new} new of {len(found)}; {store.count()} examples in all.")
    finally:
        store.close()


@edge_app.command("account")
def account(data: Data = None, as_json: AsJson = False) -> None:
    """What left this device: each delta with its size and its digest."""
    from agents.edge.store import ExampleStore

    store = ExampleStore(_made(data))
    try:
        sent, examples = store.sent(), store.count()
    finally:
        store.close()
    if as_json:
        for one in sent:
            print_json(one)
        return
    out.print(f"{examples} examples are on this device; none of them ever leaves it.")
    for one in sent:
        when = datetime.fromtimestamp(one.time_ms / 1000).strftime("%Y-%m-%d %H:%M:%S")
        out.print(
            f"{when}  round {one.round_id}: {one.bytes:,} bytes, sha256 {one.sha256[:16]}, "
            f"from {one.examples} examples in {one.seconds:.1f} s",
            markup=False,
        )


@edge_app.command("join")
def join(
    superlink: Annotated[str, typer.Option(help="host:port of the operator's gate.")],
    data: Data = None,
    ca: Annotated[Path | None, typer.Option(help="The operator's ca.pem.")] = None,
    model: Annotated[str | None, typer.Option(help="The model that is taught.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    cpu_share: Annotated[float | None, typer.Option(help="Of the time, spent training.")] = None,
    memory_mib: Annotated[int | None, typer.Option(min=256, help="Memory of training.")] = None,
    idle_only: Annotated[bool, typer.Option(help="Refuse rounds while busy.")] = False,
    charging_only: Annotated[bool, typer.Option(help="Refuse rounds on battery.")] = False,
    topic: Annotated[
        str | None, typer.Option(help="Your own Kafka topic, from which examples are taken.")
    ] = None,
) -> None:
    """Take part in rounds until Ctrl-C; a device that is offline joins the next one."""
    from infra.commands.edge_rounds import show, show_rounds, tell_what_leaves
    from infra.federation import device_parts
    from infra.ports import free_ports
    from infra.supervisor import Supervisor

    folder = _folder(data)
    _check_can_join(folder, superlink, ca)
    given = {
        "MODEL": model,
        "THREADS": threads,
        "CPU_SHARE": cpu_share,
        "MEMORY_MIB_MAX": memory_mib,
        "IDLE_ONLY": idle_only or None,
        "CHARGING_ONLY": charging_only or None,
    }
    os.environ.update(
        {f"HEADWATER_EDGE_{name}": str(v) for name, v in given.items() if v is not None}
    )
    load(EdgeSettings)  # Before anything starts: what is wrong is said at once.
    (port,) = free_ports(1)
    authority = None if ca is None else ca.absolute()
    parts = device_parts(folder, superlink, authority, port, topic)
    known = tell_what_leaves(folder)
    supervisor = Supervisor(parts, folder, show, _DEATHS_MAX)
    run(supervisor.run(lambda: show_rounds(folder, known)))


def _check_can_join(folder: Path, superlink: str, ca: Path | None) -> None:
    from infra.federation import KEY_FILE

    if not (folder / KEY_FILE).exists():
        raise SettingsInvalid(
            f"This device has no key in {folder}.",
            "Run `headwater edge key`, and have the operator admit it.",
        )
    if ca is None and not superlink.startswith(("127.0.0.1:", "localhost:")):
        raise SettingsInvalid(
            "Off this machine, the connection must be encrypted.",
            "Ask the operator for ca.pem and name it with --ca.",
        )


def _folder(data: Path | None) -> Path:
    folder = load(EdgeSettings).folder if data is None else data
    return folder.expanduser().absolute()


def _made(data: Path | None) -> Path:
    folder = _folder(data)
    if folder.exists() and not folder.is_dir():
        raise DataInvalid(f"{folder} is no folder.", "Name a folder with --data.")
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    return folder
