"""Queries of people, asked of a Prometheus: what is a number, and what is not."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tulle.control.telemetry.prometheus import Access, Prometheus
from tulle.kit.errors import Unavailable

VECTOR = '{{"status":"success","data":{{"resultType":"vector","result":[{}]}}}}'
ROW = '{{"metric":{{}},"value":[1.5,"{}"]}}'


async def numbers(answer: str, status: int = 200) -> str:
    async def said(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=answer)

    application = web.Application()
    application.router.add_post("/api/v1/query", said)
    async with TestServer(application) as server:
        prometheus = Prometheus(Access(str(server.make_url(""))))
        try:
            return str(await prometheus.numbers("x"))
        except Unavailable as error:
            return error.message
        finally:
            await prometheus.close()


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (VECTOR.format(ROW.format("0.5")), "[0.5]"),
        (VECTOR.format(ROW.format("NaN")), "[nan]"),
        (VECTOR.format(ROW.format("+Inf")), "[inf]"),
        (VECTOR.format(""), "[]"),
        (VECTOR.format(ROW.format("1") + "," + ROW.format("2")), "[1.0, 2.0]"),
        ('{"status":"success","data":{"resultType":"scalar","result":[1.5,"3"]}}', "[3.0]"),
        ('{"data":{"resultType":"matrix","result":[]}}', "found a matrix; needed a query that has a vector or a scalar"),
    ],
)
async def test_what_is_a_number(answer: str, found: str) -> None:
    """Broken: no data, NaN or a table would be taken for zero, and zero errors are the best release of all."""
    assert await numbers(answer) == found


async def test_what_is_none() -> None:
    """Broken: a query that Prometheus refuses would be taken for an answer."""
    assert await numbers('{"status":"error","error":"parse error: x"}', 400) == "it answers 400: parse error: x"
    assert "makes no sense" in await numbers(VECTOR.format(ROW.format("many")))
    assert "makes no sense" in await numbers("[]")
