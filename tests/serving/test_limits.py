"""Rates of clients, and bodies that are too large or too slow."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from lateen.serving.limits import BodyLimit, RateLimit


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_empties_and_fills_again() -> None:
    clock = Clock()
    limit = RateLimit(2.0, clock)
    assert [limit.take("a") for _ in range(20)] == [0] * 20
    assert limit.take("a") == 1
    assert limit.take("b") == 0
    clock.now = 1.0
    assert [limit.take("a") for _ in range(3)] == [0, 0, 1]
    clock.now = 1000.0
    assert [limit.take("a") for _ in range(20)] == [0] * 20
    assert limit.take("a", 5.0) == 3


def test_what_costs_more_than_a_bucket_holds_goes_through_when_it_is_full() -> None:
    clock = Clock()
    limit = RateLimit(0.1, clock)
    assert limit.take("a", 50.0) == 0
    assert limit.take("a", 50.0) > 0


def test_no_rate_is_no_limit() -> None:
    limit = RateLimit(0.0)
    assert not any(limit.take("a") for _ in range(10_000))


def test_a_household_is_one_client_and_few_are_remembered() -> None:
    limit = RateLimit(0.1, Clock())
    assert limit.take("2001:db8:1:2::1") == 0
    assert limit.take("2001:db8:1:2:ffff::9") > 0
    assert limit.take("2001:db8:1:3::1") == 0
    assert limit.take("not an address") == 0
    for number in range(20_000):
        limit.take(f"10.{number // 65536}.{number // 256 % 256}.{number % 256}")
    assert len(limit._buckets) <= 10_000


def read(parts: list[Any], most: int = 10, seconds: float = 5.0) -> bytes:
    async def receive() -> dict[str, Any]:
        part = parts.pop(0)
        if part is None:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def whole() -> bytes:
        limit, body = BodyLimit(receive, most, seconds), b""
        while True:
            message = await limit()
            body += message["body"]
            if not message["more_body"]:
                return body

    return asyncio.run(whole())


def test_a_body_is_passed_on_up_to_the_limit() -> None:
    assert read([b"12345", b"67890"]) == b"1234567890"
    with pytest.raises(HTTPException) as refused:
        read([b"12345", b"678901", b""])
    assert refused.value.status_code == 413


def test_a_body_that_does_not_come_is_given_up() -> None:
    with pytest.raises(HTTPException) as refused:
        read([b"1", None, b"2"], seconds=0.05)
    assert refused.value.status_code == 408
