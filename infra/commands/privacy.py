"""`headwater privacy`: what private learning promised, and whether it keeps it."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from infra.commands.progress import progress
from infra.commands.shell import AsJson, out, print_json

privacy_app = typer.Typer(help="What private learning promises and spends.", no_args_is_help=True)


@privacy_app.command()
def audit(
    mode: Annotated[
        Literal["gaussian", "correlated"], typer.Option(help="The mechanism.")
    ] = "correlated",
    epsilon: Annotated[float, typer.Option(help="What the learner claims.")] = 2.0,
    delta: Annotated[float, typer.Option(help="The delta of that claim.")] = 1e-5,
    canaries: Annotated[int, typer.Option(help="Users who are there to be found again.")] = 1000,
    noise_cut: Annotated[float, typer.Option(help="Divide the noise, to see it noticed.")] = 1.0,
    model: Annotated[str, typer.Option(help="Model name, folder or Hugging Face id.")] = "smollm2",
    as_json: AsJson = False,
) -> None:
    """Attack the learner with canaries, and say how much privacy it loses at least.

    One run (Steinke, Nasr & Jagielski 2023), 95 % confidence. Fails when the claim is refuted.
    """
    from infra.evaluation.audit import Audit, run_audit
    from models.cache import user_cache_dir
    from models.engine.load import load

    loaded = load(model, user_cache_dir(), "auto", "auto")
    with progress("rounds") as report:
        result = run_audit(loaded, Audit(mode, epsilon, delta, canaries, noise_cut), report)
    if as_json:
        print_json(result)
    else:
        for name, value in result.items():
            out.print(f"{name}: {value}", markup=False)
    if not result["holds"]:
        raise typer.Exit(1)
