"""`headwater ask` and `headwater feedback`: a question and what one thinks of its answer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import msgspec
import typer

from infra.commands.shell import AsJson, err, out, pairs, print_json, run, scalars
from infra.commands.silence import told_while_silent
from schemas.errors import EventInvalid
from schemas.events import FoundPassage, Retrieval, Sampling, SearchMode
from schemas.limits import N_MAX
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
    top_p: Annotated[float, typer.Option(help="Draw from what holds this share.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Least share of the likeliest's chance.")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Over 1: less of it again.")] = 1.0,
    frequency_penalty: Annotated[float, typer.Option(help="For each use in the answer.")] = 0.0,
    presence_penalty: Annotated[float, typer.Option(help="For any use in the answer.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Same seed, same answer.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text.")] = None,
    answers: Annotated[int, typer.Option("--n", min=1, max=N_MAX, help="Answers.")] = 1,
    logprobs: Annotated[bool, typer.Option(help="Log probabilities, in --json.")] = False,
    top_logprobs: Annotated[int, typer.Option(help="And of so many likeliest.")] = 0,
    json_object: Annotated[bool, typer.Option("--json-object", help="Answer in JSON.")] = False,
    json_schema: Annotated[
        Path | None, typer.Option(help="Answer in JSON, valid under the schema in this file.")
    ] = None,
    conversation: Annotated[str | None, typer.Option(help="conversation_id.")] = None,
    user: Annotated[str | None, typer.Option(help="user_id.")] = None,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="Longest silence.")] = SILENCE_S_MAX,
    as_json: AsJson = False,
) -> None:
    """Ask, and watch the answer come. Ctrl-C cancels it."""
    if not question.strip():
        raise typer.BadParameter("Ask something.", param_hint="QUESTION")
    sampling = make_sampling(
        json_schema,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        frequency_penalty=frequency_penalty,
        presence_penalty=presence_penalty,
        seed=seed,
        stop=list(stop or []),
        n=answers,
        logprobs=logprobs or top_logprobs > 0,
        top_logprobs=top_logprobs,
        json_object=json_object,
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


def make_sampling(json_schema: Path | None, **options: Any) -> Sampling:
    """The options of a prompt. Raises EventInvalid for what contradicts or cannot be read."""
    try:
        if json_schema is not None:
            options["json_schema"] = msgspec.json.decode(json_schema.read_bytes(), type=dict)
        return Sampling(**options)
    except OSError as error:
        raise EventInvalid(f"{json_schema} cannot be read: {error}.", "Name a file.") from error
    except ValueError as error:
        raise EventInvalid(f"Sampling options: {error}.", "Change the option it names.") from error


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
        if delta.choice:
            # One answer as it comes; the others below it.
            continue
        if delta.restart:
            out.print("\n[the answer starts over on another worker]\n", markup=False)
        out.print(delta.text, end="", markup=False)
    generation = answer.generation
    assert generation is not None
    for number, other in enumerate(generation.alternatives, start=2):
        out.print(f"\n\n[answer {number}] {other.text}", end="", markup=False)
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
