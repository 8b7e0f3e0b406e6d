"""`headwater eval bandit`, `poisoning` and `labels`: what adapts beside the language model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.table import Table

from infra.commands.progress import progress
from infra.commands.shell import AsJson, err, out, print_json, run
from schemas.errors import SettingsInvalid
from streams.settings import KafkaSettings, load

if TYPE_CHECKING:
    from models.judging.labels import LabelQuality

# Of the seeds, for each policy and estimator.
_HELD_MIN = 0.9


def bandit(
    log: Annotated[
        Path | None, typer.Argument(help="Your own log, JSON lines; default: a bundled data set.")
    ] = None,
    outcomes: Annotated[
        bool, typer.Option("--outcomes", help="The river's own log: what Kafka still holds.")
    ] = False,
    dataset: Annotated[str, typer.Option(help="digits or phishing.")] = "digits",
    seeds: Annotated[int, typer.Option(min=2, help="Shuffled streams.")] = 20,
    floor: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Least chance of each arm.")
    ] = 0.02,
    memory: Annotated[
        float, typer.Option(min=0.0, help="Rewards after which one counts 1/e; 0: for ever.")
    ] = 1000.0,
    switch: Annotated[
        bool, typer.Option("--switch", help="Let the world change in the midst of the stream.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Replay logged choices through the bandit, and judge policies that were never live.

    A line of a log: {"context": [...], "arm": "a", "propensity": 0.5, "reward": 1}, and "rewards"
    of all arms by name where they are known. Fails when estimates hold in under 90 % of seeds.
    """
    from infra.evaluation.bandit import evaluate
    from infra.evaluation.bandit_data import BUNDLED, Logged, bundled, read_log, read_outcomes
    from infra.evaluation.bandit_judged import evaluate_log
    from infra.evaluation.tracked import track_evaluation

    if dataset not in BUNDLED:
        raise SettingsInvalid(f"There is no {dataset}.", f"They are {' and '.join(BUNDLED)}.")
    data = bundled(dataset) if log is None else read_log(log)
    if outcomes:
        data = run(read_outcomes(load(KafkaSettings)))
    if isinstance(data, Logged):
        judged = evaluate_log(data)
        _tell_log(judged, as_json)
        track_evaluation("bandit-log", judged, {"log": log.name if log else "outcomes"})
        return
    if floor * len(data.arms) > 1.0:
        raise SettingsInvalid(f"{len(data.arms)} arms at {floor:g} are over 1.", "Lower --floor.")
    with progress("seeds"):
        found = evaluate(data, seeds, floor, memory or None, switch)
    if as_json:
        print_json(found)
    else:
        _print_replay(found)
    setting = {"dataset": dataset, "seeds": seeds, "floor": floor, "memory": memory}
    track_evaluation("bandit", found, setting | {"switch": switch})
    worst = min(share for kinds in found["held"].values() for share in kinds.values())
    if worst < _HELD_MIN:
        err.print(f"An interval held in {worst:.0%} of the seeds only.", style="red")
        raise typer.Exit(1)


def poisoning(
    dataset: Annotated[str, typer.Option(help="digits or phishing.")] = "digits",
    seeds: Annotated[int, typer.Option(min=2, help="Shuffled streams.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Let 0, 10 and 30 % of users lie, alone or together, with and without the guard."""
    from infra.evaluation.bandit_data import BUNDLED, bundled
    from infra.evaluation.poisoning import evaluate
    from infra.evaluation.tracked import track_evaluation

    if dataset not in BUNDLED:
        raise SettingsInvalid(f"There is no {dataset}.", f"They are {' and '.join(BUNDLED)}.")
    with progress("attacks"):
        rows = evaluate(bundled(dataset), seeds)
    track_evaluation("poisoning", {"rows": rows}, {"dataset": dataset, "seeds": seeds})
    if as_json:
        for row in rows:
            print_json(row)
        return
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*("" if value is None else f"{value}" for value in row.values()))
    out.print(table)


def labels(as_json: AsJson = False) -> None:
    """How well answers predict people's labels: by label, model version and class."""
    from infra.evaluation.label_quality import count_labels
    from infra.evaluation.tracked import track_evaluation

    found = run(count_labels(load(KafkaSettings)))
    track_evaluation(
        "labels", {f"{one.label} {one.model_version}": msgspec.to_builtins(one) for one in found}
    )
    for quality in found:
        if as_json:
            print_json(msgspec.to_builtins(quality))
        else:
            _print_labels(quality)
    if not found and not as_json:
        out.print("no label has a prediction; see docs/ADAPTING.md")


def _print_replay(found: dict[str, Any]) -> None:
    out.print(f"{found['data']}: {found['events']} events, {found['arms']} arms", markup=False)
    for heading in ("reward", "regret"):
        table = Table(heading, "mean", "95 % from", "to")
        for name, one in found[heading].items():
            table.add_row(name, *(f"{one[key]:.4g}" for key in ("value", "low", "high")))
        out.print(table)
    table = Table("never live", "estimator", "interval held", "mean width")
    for target, kinds in found["held"].items():
        for kind, share in kinds.items():
            table.add_row(target, kind, f"{share:.0%}", f"{found['width'][target][kind]:.3f}")
    out.print(table)


def _tell_log(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    reward = found["logged_reward"]["value"]
    out.print(f"{found['events']} events, {reward:.4g} each; judged on {found['judged_on']}")
    table = Table("policy", "estimator", "reward", "95 % from", "to")
    for target, kinds in found["estimates"].items():
        for kind, one in kinds.items():
            figures = (f"{one[key]:.4g}" for key in ("value", "low", "high"))
            table.add_row(target, kind, *figures)
    out.print(table)


def _print_labels(quality: LabelQuality) -> None:
    overall = ", ".join(f"{name} {value:.3g}" for name, value in quality.overall.items())
    out.print(f"{quality.label} of {quality.model_version}: {overall}", markup=False)
    predicted = sorted({name for row in quality.confusion.values() for name in row})
    table = Table("class", "count", "precision", "recall", "f1", *(f"→ {p}" for p in predicted))
    for name, figures in quality.by_class.items():
        row = quality.confusion.get(name, {})
        table.add_row(
            name,
            *(f"{figures[key]:.3g}" for key in ("count", "precision", "recall", "f1")),
            *(str(row.get(other, 0)) for other in predicted),
        )
    out.print(table)
