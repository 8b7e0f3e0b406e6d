"""`headwater ask` and `headwater feedback`: a question and what one thinks of its answer."""

from __future__ import annotations

import asyncio
from typing import Annotated, cast, get_args

import typer

from infra.commands.shell import AsJson, err, out, pairs, print_json, run, scalars
from infra.commands.silence import told_while_silent
from schemas.events import FoundPassage, Retrieval, Sampling, SearchMode
from streams.answer import Answer
from streams.client import SILENCE_S_MAX, Client


def ask(
    question: Annotated[str, typer.Argument(help="What to ask.")],
    top_k: Annotated[int, typer.Option(min=0, max=50, help="Passages to find.")] = 4,
    mode: Annotated[str, typer.Option(help="fused, dense or keyword search.")] = "fused",
    score_floor: Annotated[
        float | None, typer.Option(min=-1.0, max=1.0, help="Least cosine of a passage.")
    ] = None,
    filters: Annotated[
        list[str] | None, typer.Option("--filter", help="NAME=VALUE of the metadata.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 256,
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0, help="0: likeliest.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Same seed, same answer.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text.")] = None,
    conversation: Annotated[str | None, typer.Option(help="conversation_id.")] = None,
    user: Annotated[str | None, typer.Option(help="user_id.")] = None,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="Longest silence.")] = SILENCE_S_MAX,
    as_json: AsJson = False,
) -> None:
    """Ask, and watch the answer come. Ctrl-C cancels it."""
    if not question.strip():
        raise typer.BadParameter("Ask something.", param_hint="QUESTION")
    sampling = Sampling(
        max_tokens=max_tokens, temperature=temperature, seed=seed, stop=list(stop or [])
    )
    retrieval = Retrieval(top_k, _mode(mode), score_floor, scalars(filters or [], "filter"))
    run(_ask(question, sampling, retrieval, conversation, user, timeout_s, as_json))


def feedback(
    prompt_id: Annotated[str, typer.Argument(help="The prompt whose answer is meant.")],
    rating: Annotated[
        float | None, typer.Option(min=-1.0, max=1.0, help="-1 (bad) to 1 (good).")
    ] = None,
    correction: Annotated[str | None, typer.Option(help="What it should have said.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; may be repeated.")] = None,
    user: Annotated[str | None, typer.Option(help="user_id.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what you think of an answer."""

    async def send() -> None:
        async with Client(source="/cli") as client:
            delivered = await client.feedback(
                prompt_id=prompt_id,
                rating=rating,
                correction=correction,
                labels=pairs(label or [], "label"),
                user_id=user,
            )
        if as_json:
            print_json(delivered)
        else:
            out.print(f"recorded at {delivered.partition}@{delivered.offset}", markup=False)

    run(send())


async def _ask(
    question: str,
    sampling: Sampling,
    retrieval: Retrieval,
    conversation: str | None,
    user: str | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    async with Client(source="/cli") as client:
        answer = await client.ask(
            question,
            sampling=sampling,
            retrieval=retrieval,
            conversation_id=conversation,
            user_id=user,
            silence_s_max=timeout_s,
        )
        try:
            async with told_while_silent(answer.waits_for, lambda: bool(answer.text)):
                await (stream_json(answer) if as_json else stream_text(answer))
        except asyncio.CancelledError:
            await answer.cancel()
            err.print(f"\ncancelled {answer.prompt_id}", markup=False)
            raise


async def stream_text(answer: Answer) -> None:
    """Passages, then the answer as it comes, then what it took."""
    shown = False
    async for delta in answer:
        if not shown:
            show_passages(answer.passages)
            shown = True
        if delta.restart:
            out.print("\n[the answer starts over on another worker]\n", markup=False)
        out.print(delta.text, end="", markup=False)
    generation = answer.generation
    assert generation is not None
    took_ms = generation.timings.finished_ms - generation.timings.prompted_ms
    cited = ", ".join(f"[{number}]" for number in generation.cited) or "none"
    out.print(
        f"\n\ncited: {cited} · {generation.usage.completion_tokens} tokens in {took_ms} ms · "
        f"{generation.model}/{generation.model_version} · {generation.prompt_id}",
        style="dim",
        markup=False,
    )


async def stream_json(answer: Answer) -> None:
    """Deltas, then the finished record."""
    async for delta in answer:
        print_json(delta)
    print_json(answer.generation)


def show_passages(passages: list[FoundPassage]) -> None:
    """Each passage on a line, numbered as the model sees them."""
    for number, passage in enumerate(passages, start=1):
        text = " ".join(passage.text.split())
        name = passage.title or passage.document_id
        out.print(f"[{number}] {name}: {text[:100]}…", style="cyan", markup=False)
    if not passages:
        out.print("no passages found", style="dim")
    out.print()


def _mode(given: str) -> SearchMode:
    if given in get_args(SearchMode):
        return cast(SearchMode, given)
    raise typer.BadParameter("fused, dense or keyword", param_hint="--mode")
