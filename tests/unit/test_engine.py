import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from tiny_model import build_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from models.engine.batch_model import BatchModel, Work
from models.engine.options import TorchEngineOptions
from models.engine.protocol import Engine, GenerationRequest, Piece, SamplingParams
from models.engine.sampling import Sampler
from models.engine.torch_engine import TorchEngine
from schemas.errors import EventInvalid, GenerationFailed, ModelUnavailable, SettingsInvalid

QUESTIONS = ["hello", "the river", "what carries the answers down to the sea?", "x", "🌊", "again"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


def tiny_engine(folder: Path, slots: int = 4, context_tokens_max: int = 512) -> TorchEngine:
    return TorchEngine(
        TorchEngineOptions(
            cache_dir=folder.parent,
            model=str(folder),
            slots=slots,
            context_tokens_max=context_tokens_max,
            device="cpu",
            dtype="float32",
        )
    )


@pytest_asyncio.fixture
async def engine(folder: Path) -> AsyncIterator[Engine]:
    engine = tiny_engine(folder)
    await engine.start()
    yield engine
    await engine.close()


def request(question: str, **options: object) -> GenerationRequest:
    params = SamplingParams(**{"max_tokens": 40, **options})  # type: ignore[arg-type]
    return GenerationRequest("r", ({"role": "user", "content": question},), params)


async def read(engine: Engine, request: GenerationRequest) -> list[Piece]:
    async with aclosing(engine.stream(request)) as stream:
        return [piece async for piece in stream]


async def answer(engine: Engine, question: str, **options: object) -> str:
    return "".join(piece.text for piece in await read(engine, request(question, **options)))


async def until(engine: Engine, running: int, waiting: int = 0) -> None:
    async with asyncio.timeout(5):
        while (engine.running, engine.waiting) != (running, waiting):  # noqa: ASYNC110
            await asyncio.sleep(0.002)


class Reference:
    """The slow, plain way: transformers' own generate, one prompt at a time."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def answer(self, question: str, max_tokens: int = 40) -> str:
        prompt = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        ends = [self.tokenizer.eos_token_id, self.tokenizer.convert_tokens_to_ids("<|im_end|>")]
        tokens = self.model.generate(
            **prompt, max_new_tokens=max_tokens, do_sample=False, eos_token_id=ends
        )
        new = tokens[0, prompt["input_ids"].shape[1] :]
        return str(self.tokenizer.decode(new, skip_special_tokens=True))


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    return Reference(folder)


@pytest.mark.asyncio
async def test_a_batch_answers_like_generate_one_by_one(
    engine: Engine, reference: Reference
) -> None:
    # Six questions for four slots: two of them join when others leave.
    answers = await asyncio.gather(*(answer(engine, question) for question in QUESTIONS))
    assert answers == [reference.answer(question) for question in QUESTIONS]


@pytest.mark.asyncio
async def test_answers_stay_exact_while_requests_join_and_leave(
    engine: Engine, reference: Reference
) -> None:
    lengths = [60, 3, 25, 1, 40, 9]
    tasks = []
    for question, length in zip(QUESTIONS, lengths, strict=True):
        tasks.append(asyncio.create_task(answer(engine, question, max_tokens=length)))
        await asyncio.sleep(0.005)
    expected = [reference.answer(q, n) for q, n in zip(QUESTIONS, lengths, strict=True)]
    assert await asyncio.gather(*tasks) == expected


@pytest.mark.asyncio
async def test_rows_grow_past_one_block(engine: Engine, reference: Reference) -> None:
    question = "down to the sea " * 60
    texts = await asyncio.gather(*(answer(engine, q) for q in ("x", question)))
    assert engine.count_tokens(({"role": "user", "content": question},)) > 256
    assert texts == [reference.answer("x"), reference.answer(question)]


@pytest.mark.asyncio
async def test_each_piece_is_a_new_token_and_prompts_are_counted_as_asked(engine: Engine) -> None:
    pieces = await read(engine, request("the river", max_tokens=12))
    counts = [piece.completion_tokens for piece in pieces]
    assert counts == sorted(set(counts))
    assert pieces[-1].prompt_tokens == engine.count_tokens(request("the river").messages)


@pytest.mark.asyncio
async def test_a_seed_gives_the_same_text_alone_and_in_company(engine: Engine) -> None:
    options = {"temperature": 1.0, "top_p": 0.9, "seed": 11}
    alone = await answer(engine, "x", **options)
    company = [answer(engine, q, temperature=1.0, seed=i) for i, q in enumerate(QUESTIONS)]
    together, *_ = await asyncio.gather(answer(engine, "x", **options), *company)
    assert together == alone
    assert await answer(engine, "x", **{**options, "seed": 12}) != alone


@pytest.mark.asyncio
async def test_closing_a_stream_frees_its_slot(folder: Path) -> None:
    engine = tiny_engine(folder, slots=1)
    await engine.start()
    stream = engine.stream(request("the river", max_tokens=400))
    await anext(stream)
    assert engine.running == 1
    waiting = asyncio.create_task(answer(engine, "x", max_tokens=3))
    await stream.aclose()
    await waiting
    await until(engine, running=0)
    await engine.close()


@pytest.mark.asyncio
async def test_cancelling_a_reader_frees_its_slot_or_its_place(
    engine: Engine, reference: Reference
) -> None:
    tasks = [asyncio.create_task(answer(engine, "the river", max_tokens=400)) for _ in range(9)]
    await until(engine, running=4, waiting=5)
    for task in tasks[1:]:
        task.cancel()
    await asyncio.gather(*tasks[1:], return_exceptions=True)
    await until(engine, running=1)
    assert await answer(engine, "x") == reference.answer("x")
    assert await tasks[0] == reference.answer("the river", 400)


@pytest.mark.asyncio
async def test_a_prompt_without_room_for_an_answer_is_refused_with_both_numbers(
    folder: Path,
) -> None:
    engine = tiny_engine(folder, context_tokens_max=64)
    await engine.start()
    long = request("sea " * 60)
    with pytest.raises(EventInvalid, match=rf"{engine.count_tokens(long.messages)} .* 63 "):
        engine.stream(long)
    # What fits is answered, as far as the context goes.
    pieces = await read(engine, request("river", max_tokens=1000, temperature=3.0))
    assert pieces[-1].prompt_tokens + pieces[-1].completion_tokens <= 64
    await engine.close()


@pytest.mark.asyncio
async def test_messages_that_the_template_refuses_are_refused(engine: Engine) -> None:
    for messages in ((), ({"role": "judge", "content": "?"},)):
        with pytest.raises(EventInvalid):
            engine.stream(GenerationRequest("r", messages, SamplingParams()))


@pytest.mark.asyncio
async def test_a_failing_step_ends_its_requests_and_the_engine_goes_on(
    engine: Engine, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = BatchModel.run

    def fail_when_full(model: BatchModel, works: Sequence[Work]) -> Any:
        if sum(work.held.stage is None for work in works) == 2:
            raise RuntimeError("out of memory")
        return run(model, works)

    monkeypatch.setattr(BatchModel, "run", fail_when_full)
    both = await asyncio.gather(*(read(engine, request(q, max_tokens=400)) for q in QUESTIONS[1:3]))
    assert [pieces[-1].finish_reason for pieces in both] == ["error", "error"]
    assert both[0][-1].error == "RuntimeError: out of memory"
    assert await answer(engine, "x") == reference.answer("x")


@pytest.mark.asyncio
async def test_a_request_whose_wishes_fail_leaves_the_running_ones_alone(
    engine: Engine, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = asyncio.create_task(answer(engine, "the river", max_tokens=400))
    await until(engine, running=1)
    monkeypatch.setattr(Sampler, "adjust", lambda sampler, logits: 1 / 0)
    failed = await read(engine, request("x", presence_penalty=1.0))
    assert [piece.finish_reason for piece in failed] == ["error"]
    assert await running == reference.answer("the river", 400)


@pytest.mark.asyncio
async def test_a_start_that_is_cancelled_leaves_no_thread(folder: Path) -> None:
    before = set(threading.enumerate())
    starting = asyncio.create_task(tiny_engine(folder).start())
    # Once round the loop: the thread has started, and has not loaded anything yet.
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert set(threading.enumerate()) == before


@pytest.mark.asyncio
async def test_closing_ends_open_streams_and_leaves_no_thread(folder: Path) -> None:
    before = set(threading.enumerate())
    engine = tiny_engine(folder, slots=1)
    await engine.start()
    tasks = [asyncio.create_task(answer(engine, "the river", max_tokens=400)) for _ in range(3)]
    await until(engine, running=1, waiting=2)
    await engine.close()
    await engine.close()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends] == [GenerationFailed] * 3
    assert set(threading.enumerate()) == before
    with pytest.raises(GenerationFailed):
        engine.stream(request("too late"))


@pytest.mark.asyncio
async def test_a_model_that_cannot_be_loaded_says_so_at_start(tmp_path: Path) -> None:
    engine = tiny_engine(tmp_path)
    with pytest.raises(ModelUnavailable, match="save_pretrained"):
        await engine.start()
    await engine.close()


def test_settings_check_themselves(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid):
        TorchEngineOptions(cache_dir=tmp_path, slots=0)
