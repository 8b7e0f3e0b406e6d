"""`headwater privacy`: what was promised, what is spent, and whether the ledger holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from agents.adapting.settings import AdaptSettings
from agents.joining.pseudonyms import open_pseudonyms
from agents.learning.paths import ledger_path
from agents.settings import JoinSettings, LearnSettings
from infra.commands.progress import progress
from infra.commands.shell import AsJson, err, out, print_json
from schemas.errors import DataInvalid, LedgerBroken
from streams.settings import load

if TYPE_CHECKING:
    from infra.privacy_report import AdapterReport, UserReport

privacy_app = typer.Typer(help="What private learning promises and spends.", no_args_is_help=True)

_PSEUDONYM = re.compile(r"(user|conversation|prompt)-[0-9a-f]{32}")


@privacy_app.command("report")
def print_report(
    user: Annotated[
        str | None, typer.Option(help="One person's part: a user_id, or a pseudonym.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify the ledger, compute epsilon anew; status 1 where the ledger is broken."""
    # Imported late: numpy, scipy and torch.
    from infra.privacy_report import read_spent, report, user_report
    from models.privacy.ledger_store import LedgerStore

    path = ledger_path(load(LearnSettings))
    if not path.exists():
        _report_without_ledger(path, user, as_json)
        return
    pseudonym = None if user is None else _pseudonym(user)
    store = LedgerStore(path)
    broken = False
    try:
        for adapter in store.adapters():
            try:
                spent = read_spent(store, adapter)
            except LedgerBroken as error:
                broken = True
                err.print(f"error: {error.message}\n{error.remedy}", style="red", markup=False)
                continue
            found = report(spent) if pseudonym is None else user_report(spent, pseudonym)
            if as_json:
                print_json(found)
            else:
                _print(found)
        if pseudonym is None or not as_json:
            _print_beside(as_json)
    finally:
        store.close()
    if pseudonym is None:
        _print_tunings(as_json)
    if broken:
        raise typer.Exit(1)


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
    from infra.evaluation.tracked import track_evaluation
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
    track_evaluation("audit", result, {"mode": mode, "model": model, "canaries": canaries})
    if not result["holds"]:
        raise typer.Exit(1)


def _pseudonym(user: str) -> str:
    if _PSEUDONYM.fullmatch(user):
        return user
    settings = load(JoinSettings)
    path = settings.pseudonym_key_file.expanduser()
    if settings.pseudonym_key is None and not path.exists():
        raise DataInvalid(
            f"There is no pseudonym key at {path}.",
            "Set HEADWATER_JOIN_PSEUDONYM_KEY_FILE, or name the pseudonym itself.",
        )
    return open_pseudonyms(settings).of(user=user, conversation=None, prompt="")


def _report_without_ledger(path: Path, user: str | None, as_json: bool) -> None:
    """What can be said all the same; raises DataInvalid where nothing spent anything."""
    if user is None:
        _print_beside(as_json)
        if _print_tunings(as_json):
            return
    raise DataInvalid(
        f"There is no ledger at {path}.",
        "Nothing was learned there; HEADWATER_LEARN_FOLDER names another folder.",
    )


def _print_beside(as_json: bool) -> None:
    """What learns from feedback without a mechanism, as the settings of this shell say."""
    settings, learn = load(AdaptSettings), load(LearnSettings)
    if learn.mechanism == "none":
        return
    if as_json:
        on = settings.beside_privacy
        variants, guards = bool(settings.variants) and on, settings.guard_learning and on
        print_json({"outside_the_guarantee": {"variants": variants, "guard_learning": guards}})
        return
    if not settings.beside_privacy:
        out.print("beside it: variants, weights and quarantine are off, for learning is private")
        return
    out.print("beside it, OUTSIDE THE GUARANTEE (HEADWATER_ADAPT_BESIDE_PRIVACY):")
    policy = "chosen by what users liked" if settings.variants else "none on trial"
    out.print(f"  serving variants are {policy}")
    out.print(f"  the guard decides what is learned from: {str(settings.guard_learning).lower()}")


def _print(found: AdapterReport | UserReport) -> None:
    from infra.privacy_report import UserReport

    if isinstance(found, UserReport):
        rounds = ", ".join(map(str, found.rounds)) or "none"
        out.print(f"{found.adapter}: {found.user}, rounds {rounds}{_epsilon(found.epsilon)}")
        return
    out.print(f"{found.adapter}: {found.mechanism}, the ledger holds", markup=False)
    out.print(f"  rounds {found.rounds} of {found.rounds_max}, {found.users} users")
    if found.epsilon_spent is None or found.epsilon_limit is None:
        out.print("  nothing is promised to those who gave feedback")
    else:
        left = found.epsilon_limit - found.epsilon_spent
        out.print(
            f"  epsilon {found.epsilon_spent:.4f} spent of {found.epsilon_limit:.4f}, "
            f"{left:.4f} left, at delta {found.delta:g}"
        )
    if found.user_epsilon:
        shares = ", ".join(f"{name} {value:.4f}" for name, value in found.user_epsilon.items())
        out.print(f"  of users: {shares}")
    out.print(f"  last entry {found.ledger_sha256}")
    if found.guarded and found.epsilon_spent is not None:
        out.print("  OUTSIDE THE GUARANTEE: a guard that learns from all users weighed and chose")
        out.print("  whose feedback counts; epsilon does not cover it (docs/PRIVACY.md)")


def _print_tunings(as_json: bool) -> int:
    """What tunings spent beside the adapters; how many there are."""
    from infra.tuning_report import tuning_reports

    tunings = tuning_reports(load(LearnSettings))
    for found in tunings:
        if as_json:
            print_json(found)
            continue
        out.print(f"tuning {found.tuning}: {found.mechanism}, {found.candidates} candidates")
        if found.epsilon_spent is None or found.epsilon_limit is None:
            out.print("  its examples were public, or nothing was promised")
            continue
        out.print(
            f"  epsilon {found.epsilon_spent:.4f} spent of {found.epsilon_limit:.4f} by all of "
            f"them together, at delta {found.delta:g}; it adds to that of the adapters"
        )
    return len(tunings)


def _epsilon(epsilon: float | None) -> str:
    return "" if epsilon is None else f", epsilon {epsilon:.4f}"
