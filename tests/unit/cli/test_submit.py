from __future__ import annotations

import json
from typing import Any

import pytest

from schemas import MAX_REQUEST_BYTES, Request
from workers.cli.submit import BadLine, read

MESSAGES = [{"role": "user", "content": "How tall is a giraffe?"}]
REQUEST = {"request_id": "r1", "tenant": "acme", "feature": "zoo", "messages": MESSAGES, "strange": "kept"}


def line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def openai(**body: Any) -> bytes:
    return line({"custom_id": "c1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": MESSAGES} | body})


def test_a_request_is_published_as_it_stands_in_the_file() -> None:
    assert list(read([line(REQUEST), b"\n"], None, None)) == [("acme/r1", line(REQUEST).strip())]


def test_an_openai_line_becomes_a_request_of_the_tenant_and_feature() -> None:
    ((key, value),) = read([openai(max_completion_tokens=9, temperature=0, user="u1", metadata={"a": "b"})], "acme", "zoo")
    request = Request.model_validate_json(value)
    assert key == "acme/c1"
    assert (request.request_id, request.tenant, request.feature, request.user) == ("c1", "acme", "zoo", "u1")
    assert (request.params.max_completion_tokens, request.params.temperature) == (9, 0)
    assert request.metadata == {"a": "b"}
    assert request.messages[-1].text == "How tall is a giraffe?"


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (b"no json\n", "line 2: Expecting value"),
        (b"[" * 100_000, "line 2: nested too deep"),
        (b'{"request_id": "\xff"}\n', "^line 2: not UTF-8 at byte 16$"),
        (json.dumps(REQUEST).encode("utf-16"), "^line 2: not UTF-8 at byte 0$"),
        (line(REQUEST | {"messages": []}), "line 2: messages: "),
        (line(REQUEST | {"params": {"api_key": "x"}}), "line 2: params.api_key: "),
        (line({k: v for k, v in REQUEST.items() if k != "tenant"}), "line 2: tenant: Field required"),
        (line(REQUEST | {"request_id": "r0"}), "line 2: the id r0 stands in line 1, too"),
        (line(REQUEST | {"metadata": {"x": "y" * MAX_REQUEST_BYTES}}), "line 2: .* bytes, at most 900,000 are allowed"),
        (openai(logprobs=True), "line 2: body.logprobs: not supported"),
        (line({"custom_id": "c1", "url": "/v1/embeddings", "body": {}}), "line 2: url: /v1/embeddings is not"),
        (line({"custom_id": "c1", "body": []}), "line 2: body: must be an object"),
    ],
)
def test_a_bad_line_is_named(bad: bytes, told: str) -> None:
    with pytest.raises(BadLine, match=told):
        list(read([line(REQUEST | {"request_id": "r0"}), bad], "acme", "zoo"))


def test_an_openai_line_needs_a_tenant_and_a_feature() -> None:
    with pytest.raises(BadLine, match="line 1: an OpenAI batch line needs --tenant and --feature"):
        list(read([openai()], "acme", None))
