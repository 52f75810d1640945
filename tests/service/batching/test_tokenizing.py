"""What many or long texts do to others while they are tokenised: places in the queue, and time that runs out."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from service.batching.jobs import Expired, Full, QueueFull
from service.bundle.encoder import Encoder, Row, Text
from service.bundle.runtime import OpenBundle
from service.predictors import Predictor
from service.settings import Settings
from service.telemetry.metrics import Metrics

LONG = "good " * 300
"""Too long to be tokenised on the event loop."""

SOON_S = 0.05


class Held:
    """The bundle's encoder, which takes its time: until it is let go."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.seen: list[Text] = []
        self.gate = threading.Event()

    def encode(self, texts: Sequence[Text], *, truncate: bool = True) -> list[Row]:
        self.seen += texts
        if texts[0] == LONG:
            assert self.gate.wait(10)
        return self._encoder.encode(texts, truncate=truncate)

    def __getattr__(self, name: str) -> object:
        return getattr(self._encoder, name)


Scenario = Callable[[Predictor, Held], Coroutine[Any, Any, None]]


def play(bundle: OpenBundle, scenario: Scenario, **knobs: Any) -> None:
    async def act() -> None:
        held = Held(bundle.encoder)
        slow = replace(bundle, encoder=held)  # type: ignore[arg-type]  # it does what an encoder does
        predictor = Predictor(slow, Settings(models=Path(), **knobs), Metrics())
        try:
            await scenario(predictor, held)
        finally:
            held.gate.set()
            await predictor.close(10)

    asyncio.run(act())


async def begun(predictor: Predictor, texts: Sequence[str], client: str) -> "asyncio.Task[object]":
    """A request whose texts are being tokenised."""
    task = asyncio.ensure_future(predictor.admit(texts, client=client))
    await asyncio.sleep(0)
    assert predictor.queued_rows == len(texts)
    return task


def test_places_are_kept_for_a_client_and_count_as_its_own(toy_bundle: OpenBundle) -> None:
    async def scenario(predictor: Predictor, held: Held) -> None:
        greedy = await begun(predictor, [LONG] * 4, "greedy")
        modest = await predictor.admit(["bad"], client="modest")  # has nothing waiting but this
        with pytest.raises(QueueFull) as refusal:
            await predictor.admit(["bad"], client="greedy")
        assert refusal.value.reason is Full.CLIENT
        await modest.future
        held.gate.set()
        await greedy

    play(toy_bundle, scenario, max_queue_rows=8, max_request_rows=4, max_client_share=0.5)


def test_all_that_is_tokenised_fills_the_queue(toy_bundle: OpenBundle) -> None:
    async def scenario(predictor: Predictor, held: Held) -> None:
        waiting = [await begun(predictor, [LONG] * 4, "one")]
        with pytest.raises(QueueFull) as refusal:
            await predictor.admit(["bad"] * 5, client="two")
        assert refusal.value.reason is Full.ROWS
        held.gate.set()
        await asyncio.gather(*waiting)
        assert await (await predictor.admit(["bad"] * 4, client="two")).future

    play(toy_bundle, scenario, max_queue_rows=8, max_request_rows=4, max_client_share=1)


def test_a_deadline_ends_the_wait_for_the_tokenizer_and_what_is_late_is_never_tokenised(toy_bundle: OpenBundle) -> None:
    async def scenario(predictor: Predictor, held: Held) -> None:
        before = await begun(predictor, [LONG], "one")
        with pytest.raises(Expired):
            await predictor.admit(["bad", "late"], perf_counter() + SOON_S)
        assert not before.done()
        held.gate.set()
        await before
        last = await predictor.admit(["bad", "in time"], perf_counter() + 10)
        assert len((await last.future).results) == 2
        assert "late" not in held.seen

    play(toy_bundle, scenario)


def test_a_client_that_leaves_gives_its_places_up(toy_bundle: OpenBundle) -> None:
    async def scenario(predictor: Predictor, held: Held) -> None:
        leaving = await begun(predictor, [LONG] * 4, "one")
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert predictor.queued_rows == 0
        held.gate.set()

    play(toy_bundle, scenario)
