"""The trace of a record: what its header says, or a new one."""

from __future__ import annotations

import re

import pytest

from workers.runtime import tracing

GOOD = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_traceparent_goes_on_as_it_came() -> None:
    trace = tracing.of([("other", b"\xff"), ("traceparent", GOOD)])
    assert trace == tracing.Trace("0af7651916cd43dd8448eb211c80319c", GOOD.decode())


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"nonsense",
        b"\xff\xfe",
        GOOD.upper(),
        GOOD + b"-more",
        b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01",
        b"00-0af7651916cd43dd8448eb211c80319c-" + b"0" * 16 + b"-01",
    ],
)
def test_anything_else_begins_a_new_trace(header: bytes) -> None:
    trace = tracing.of([("traceparent", header)])
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", trace.parent)
    assert trace.trace_id == trace.parent.split("-")[1]
    assert trace.trace_id not in ("0" * 32, "0af7651916cd43dd8448eb211c80319c")
    assert trace != tracing.of([])
