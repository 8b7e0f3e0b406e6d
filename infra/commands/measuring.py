"""`headwater eval` and `headwater bench`: figures, each from a river of its own."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from infra.commands.adapting import bandit, labels, poisoning
from infra.commands.agent import limit_spinning
from infra.commands.documents import documents
from infra.commands.drift import drift
from infra.commands.federation import federation, federation_scale
from infra.commands.learning import learning
from infra.commands.local import fetched, supervised
from infra.commands.shell import AsJson, err, out, print_json, run
from infra.ports import free_ports
from infra.river import AGENTS, ANSWERING, FEDERATE, GATEWAY, local_river
from schemas.errors import SettingsInvalid
from streams.settings import KafkaSettings, load

eval_app = typer.Typer(help="Quality on real data.", no_args_is_help=True)
eval_app.command()(learning)
eval_app.command()(federation)
eval_app.command()(federation_scale)
eval_app.command()(drift)
eval_app.command()(documents)
for adaptive in (bandit, poisoning, labels):
    eval_app.command()(adaptive)

BENCHMARKS = (
    "publish",
    "freshness",
    "first-token",
    "private-step",
    "swaps",
    "learning",
    "gateway",
    "windows",
    "federation",
)


@eval_app.command()
def retrieval(
    file: Annotated[Path, typer.Argument(help="SQuAD-format JSON, such as XQuAD's.")],
    as_json: AsJson = False,
) -> None:
    """Publish the paragraphs of a file, ask its questions, say how often they are found.

    Fails when dense search differs from brute force, or fused search does not beat it.
    """
    from infra.evaluation.retrieval import evaluate_retrieval
    from infra.evaluation.squad import read_squad
    from infra.evaluation.tracked import track_evaluation
    from models.embedder import Embedder

    squad = read_squad(file)
    if not squad.questions:
        raise SettingsInvalid(f"{file} asks no questions.", "Give a file with qas.")

    async def work(kafka: KafkaSettings) -> dict[str, Any]:
        return await evaluate_retrieval(kafka, squad, Embedder())

    result = on_own_river(work, ("ingest", "retrieve"))
    dense, brute, fused = (result[name] for name in ("dense", "brute_force", "fused"))
    result["dense_equals_brute_force"] = dense == brute
    result["fused_beats_dense"] = (
        fused["recall@1"] > dense["recall@1"] and fused["mrr"] > dense["mrr"]
    )
    _print(result, as_json)
    track_evaluation("retrieval", result, {"file": file.name})
    if not (result["dense_equals_brute_force"] and result["fused_beats_dense"]):
        raise typer.Exit(1)


def bench(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME…]", help=", ".join(BENCHMARKS))
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the river with doing the same by hand, side by side."""
    chosen = names or list(BENCHMARKS)
    if unknown := set(chosen) - set(BENCHMARKS):
        raise SettingsInvalid(
            f"There is no benchmark {', '.join(unknown)}.", f"They are {', '.join(BENCHMARKS)}."
        )

    limit_spinning()

    async def through_agents(kafka: KafkaSettings) -> dict[str, Any]:
        from infra.bench.all import run_benchmarks

        return await run_benchmarks(kafka, chosen)

    async def publishing(kafka: KafkaSettings) -> dict[str, Any]:
        from infra.bench.publish import bench_publish

        return {"publish": await bench_publish(kafka)}

    result: dict[str, Any] = {}
    if "publish" in chosen:
        # No agents: they would index what is published while the rate is taken.
        result |= on_own_river(publishing, ())
    if "private-step" in chosen:
        from infra.bench.private_step import bench_private_step
        from models.cache import user_cache_dir

        result["private-step"] = bench_private_step(user_cache_dir())
    if "swaps" in chosen:
        result["swaps"] = _swaps()
    if "learning" in chosen:
        from infra.bench.learning import LEARNING_ENV, bench_learning

        result["learning"] = on_own_river(bench_learning, AGENTS, LEARNING_ENV)
    if "gateway" in chosen:
        result["gateway"] = _gateway()
    if "windows" in chosen:
        from infra.bench.windows import bench_windows

        result["windows"] = on_own_river(bench_windows, ())
    if "federation" in chosen:
        result["federation"] = _federation()
    if set(chosen) & {"freshness", "first-token"}:
        result |= on_own_river(through_agents, ANSWERING)
    _print(result, as_json)


def _gateway() -> dict[str, Any]:
    from infra.bench.gateway import bench_gateway
    from infra.bench.wrk import bench_wrk

    (port,) = free_ports(1)

    async def asking(kafka: KafkaSettings) -> dict[str, Any]:
        return await bench_gateway(kafka, port) | {"wrk": await bench_wrk(port)}

    env = {
        "HEADWATER_GATEWAY_PORT": str(port),
        "HEADWATER_GATEWAY_REQUESTS_PER_MINUTE": "1000000",
    }
    return on_own_river(asking, (*ANSWERING, GATEWAY), env)


def _federation() -> dict[str, Any]:
    from agents.settings import GenerateSettings
    from infra.bench.federation import bench_federation, bench_fleet

    settings = load(GenerateSettings)
    with tempfile.TemporaryDirectory(prefix="headwater-") as folder:
        fleet = bench_fleet(Path(folder), settings.model, settings.cache_dir)
        learning = {"HEADWATER_LEARN_FOLDER": str(Path(folder) / "learning")}
        return on_own_river(
            lambda kafka: bench_federation(kafka, fleet), (FEDERATE,), fleet.env | learning
        )


def _swaps() -> dict[str, Any]:
    """Of the engine alone, then through the topics."""
    from agents.settings import GenerateSettings
    from infra.bench.swap_stalls import bench_swap_stalls
    from infra.bench.swaps import bench_swaps

    settings = load(GenerateSettings)
    stalls = asyncio.run(bench_swap_stalls(settings.cache_dir, settings.model))

    async def through_topics(kafka: KafkaSettings) -> dict[str, Any]:
        return await bench_swaps(kafka, settings.cache_dir, settings.model)

    with tempfile.TemporaryDirectory(prefix="headwater-") as folder:
        # Not among the adapters that this user's workers keep.
        env = {"HEADWATER_GENERATE_ADAPTERS_DIR": folder}
        return {"engine": stalls, "river": on_own_river(through_topics, ("generate",), env)}


def on_own_river(
    work: Callable[[KafkaSettings], Awaitable[dict[str, Any]]],
    agents: tuple[str, ...],
    env: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Do `work` on a fresh river that nobody else uses, and throw the river away."""
    distribution = fetched()
    with tempfile.TemporaryDirectory(prefix="headwater-") as folder:
        port, controller_port = free_ports(2)
        river = local_river(distribution, Path(folder), port, controller_port, env, agents)
        kafka = load(KafkaSettings, bootstrap=river.bootstrap)

        async def on_river() -> dict[str, Any]:
            return await work(kafka)

        result = run(supervised(river, on_river))
    if result is None:
        raise typer.Exit(130)
    return dict(result)


def _print(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    for name, value in result.items():
        out.print(f"{name}: {value}", markup=False)
    err.print("With --json the same as one line of JSON.", style="dim")
