"""`headwater keys`: who may use the gateway."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from agents.gateway.access.keys import add_key, read_keys, remove_key
from infra.commands.shell import AsJson, err, out, print_json
from infra.paths import data_dir
from infra.river import keys_file

keys_app = typer.Typer(help="API keys of the gateway.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="What the key is called; it is no secret.")]


@keys_app.command()
def add(
    name: Name,
    documents: Annotated[bool, typer.Option(help="It may add and delete documents.")] = False,
    operator: Annotated[bool, typer.Option(help="It may roll versions back.")] = False,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Default: HEADWATER_GATEWAY_REQUESTS_PER_MINUTE.")
    ] = None,
    tokens_per_day: Annotated[
        int | None, typer.Option(min=1, help="Tokens of prompts and answers; default: any.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add a key and print its secret, which cannot be printed again."""
    wanted = {"documents": documents, "operator": operator}
    scopes = [scope for scope, given in wanted.items() if given]
    secret = add_key(_path(), name, scopes, requests_per_minute, tokens_per_day)
    if as_json:
        print_json({"name": name, "key": secret, "scopes": scopes})
        return
    out.print(secret, markup=False)
    err.print("Keep it: only its hash is stored.", style="dim")


@keys_app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """Show the keys, without their secrets."""
    keys = read_keys(_path())
    if as_json:
        for key in keys:
            print_json(key)
        return
    table = Table("name", "made", "may also", "a minute", "tokens a day", box=None)
    for key in keys:
        made = datetime.fromtimestamp(key.created_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
        limits = (str(n or "") for n in (key.requests_per_minute, key.tokens_per_day))
        table.add_row(key.name, made, ", ".join(key.scopes), *limits)
    out.print(table if keys else "no keys; the gateway answers this machine alone")


@keys_app.command()
def remove(name: Name) -> None:
    """Remove a key; gateways refuse it within a second."""
    remove_key(_path(), name)
    out.print(f"{name} is removed", markup=False)


def _path() -> Path:
    return keys_file(data_dir()).expanduser()
