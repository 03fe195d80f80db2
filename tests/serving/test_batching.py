"""Queries share forward passes; none is lost, and too many are refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from lateen.serving.batching import Lane, SharedEncoder
from lateen.serving.work import OverloadedError


class Held:
    """An encoder that begins a pass, says so, and ends it when it may."""

    def __init__(self) -> None:
        self.passes: list[list[str]] = []
        self.begun, self.may_end = threading.Event(), threading.Event()

    def texts(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        self.passes.append(list(texts))
        self.begun.set()
        assert self.may_end.wait(20)
        if "bad" in texts:
            raise ValueError("bad")
        return np.array([[float(text.removeprefix("t"))] for text in texts], np.float32)

    def images(self, images: Sequence[Any]) -> np.ndarray[Any, Any]:
        return np.array([[float(image)] for image in images], np.float32)


@pytest.fixture
def held() -> Iterator[tuple[Held, SharedEncoder, ThreadPoolExecutor]]:
    encoder = Held()
    shared = SharedEncoder(encoder, rows=8, wait=0.0, waiting=16)
    with ThreadPoolExecutor(32) as pool:
        yield encoder, shared, pool
        encoder.may_end.set()
    shared.close()


def waiting(shared: SharedEncoder, count: int) -> None:
    for _ in range(2000):
        if shared.text_lane.waiting == count:
            return
        threading.Event().wait(0.005)
    raise AssertionError(f"{shared.text_lane.waiting} wait, not {count}")


def test_queries_that_come_while_a_pass_is_on_share_the_next(held: Any) -> None:
    encoder, shared, pool = held
    first = pool.submit(shared.texts, ["t0"])
    assert encoder.begun.wait(20)
    others = [pool.submit(shared.texts, [f"t{i}"]) for i in range(1, 6)]
    waiting(shared, 5)
    encoder.may_end.set()
    assert [each.result(20).tolist() for each in (first, *others)] == [
        [[float(i)]] for i in range(6)
    ]
    assert encoder.passes[0] == ["t0"]
    assert sorted(encoder.passes[1]) == ["t1", "t2", "t3", "t4", "t5"]
    assert (shared.text_lane.passes, shared.text_lane.rows_done) == (2, 6)


def test_more_than_can_wait_are_refused_at_once_and_the_others_answered(held: Any) -> None:
    encoder, shared, pool = held
    first = pool.submit(shared.texts, ["t0"])
    assert encoder.begun.wait(20)
    others = [pool.submit(shared.texts, [f"t{i}"]) for i in range(1, 17)]
    waiting(shared, 16)
    with pytest.raises(OverloadedError):
        shared.texts(["t99"])
    encoder.may_end.set()
    assert [each.result(20)[0, 0] for each in (first, *others)] == list(range(17))


def test_one_bad_query_fails_alone(held: Any) -> None:
    encoder, shared, pool = held
    first = pool.submit(shared.texts, ["t0"])
    assert encoder.begun.wait(20)
    bad, good = pool.submit(shared.texts, ["bad"]), pool.submit(shared.texts, ["t5"])
    waiting(shared, 2)
    encoder.may_end.set()
    assert good.result(20)[0, 0] == 5
    assert first.result(20)[0, 0] == 0
    with pytest.raises(ValueError, match="bad"):
        bad.result(20)
    assert shared.texts(["t6"])[0, 0] == 6


def test_the_same_text_is_embedded_once_and_remembered(held: Any) -> None:
    encoder, shared, _ = held
    encoder.may_end.set()
    assert shared.texts(["t1", "t2", "t1"])[:, 0].tolist() == [1, 2, 1]
    assert shared.texts(["t2", "t3"])[:, 0].tolist() == [2, 3]
    assert encoder.passes == [["t1", "t2"], ["t3"]]


def test_the_same_text_of_two_askers_goes_through_once(held: Any) -> None:
    encoder, shared, pool = held
    first = pool.submit(shared.texts, ["t0"])
    assert encoder.begun.wait(20)
    twice = [pool.submit(shared.texts, ["t7"]) for _ in range(2)]
    waiting(shared, 2)
    encoder.may_end.set()
    assert [each.result(20)[0, 0] for each in (first, *twice)] == [0, 7, 7]
    assert encoder.passes[1] == ["t7"]


def test_many_labels_go_in_parts_so_that_others_get_their_turn(held: Any) -> None:
    encoder, shared, pool = held
    many = pool.submit(shared.texts, [f"t{i}" for i in range(30)])
    assert encoder.begun.wait(20)
    other = pool.submit(shared.texts, ["t99"])
    waiting(shared, 1)
    encoder.may_end.set()
    assert many.result(20)[:, 0].tolist() == list(range(30))
    assert other.result(20)[0, 0] == 99
    assert "t99" in encoder.passes[1]
    assert max(map(len, encoder.passes)) <= 8 + 8


def test_few_texts_are_remembered(held: Any) -> None:
    encoder, shared, _ = held
    encoder.may_end.set()
    for start in range(0, 6000, 1000):
        shared.texts([f"t{i}" for i in range(start, start + 1000)])
    assert len(shared._known) == 4096


def test_what_waits_when_the_server_ends_is_refused_not_left() -> None:
    encoder = Held()
    lane: Lane[str] = Lane("texts", encoder.texts, rows=1, wait=0.0, waiting=8)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(lane.ask, ["t0"])
        assert encoder.begun.wait(20)
        later = pool.submit(lane.ask, ["t1"])
        while not lane.waiting:
            threading.Event().wait(0.005)
        closing = pool.submit(lane.close)
        with pytest.raises(OverloadedError):
            later.result(20)
        encoder.may_end.set()
        closing.result(20)
        assert first.result(20)[0, 0] == 0
    with pytest.raises(OverloadedError):
        lane.ask(["t2"])


def test_pictures_have_a_thread_of_their_own(held: Any) -> None:
    encoder, shared, pool = held
    encoder.may_end.set()
    shared.texts(["t0"])
    encoder.may_end.clear()
    encoder.begun.clear()
    slow = pool.submit(shared.texts, ["t1"])
    assert encoder.begun.wait(20)
    assert shared.images([3, 4])[:, 0].tolist() == [3, 4]
    encoder.may_end.set()
    assert slow.result(20)[0, 0] == 1


def test_texts_that_are_foreseen_hold_no_thread(held: Any) -> None:
    encoder, shared, _ = held

    async def many() -> None:
        asked = [asyncio.create_task(shared.foresee(["t0"]))]
        while not encoder.begun.is_set():
            await asyncio.sleep(0.005)
        asked += [asyncio.create_task(shared.foresee([f"t{i}", "t1"])) for i in range(1, 8)]
        for _ in range(2000):
            await asyncio.sleep(0.005)
            if shared.text_lane.waiting == 7:
                break
        asked[7].cancel()  # whoever asked has gone
        encoder.may_end.set()
        await asyncio.gather(*asked, return_exceptions=True)

    asyncio.run(many())
    before = len(encoder.passes)
    assert shared.texts([f"t{i}" for i in range(7)])[:, 0].tolist() == list(range(7))
    assert len(encoder.passes) == before
    assert shared.texts(["t8"])[0, 0] == 8  # the thread goes on
