"""What users send in one run: a pure function of the seed and the number of records.

Three tenants a seed: `acme` has money, `bolt` a day's budget that does not last, `coil` tokens for a minute at a time. Among the ordinary
requests: the same question from all of them, with several backgrounds; questions that no cache may answer, again and again; the same record
sent twice; the same id with another body; requests that are refused, that come too late, or that have only seconds; and records that nobody
can read.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

Headers = tuple[tuple[str, bytes | None], ...]

TENANTS = ("acme", "acme", "acme", "bolt", "coil")
USERS = ("u-1", "u-2", "u-3", None)
FEATURES = ("support", "search", "digest")

SHARED = (
    "How do I reset a password?",
    "How do I change the language of the menu?",
    "How do you export a table as a file?",
    "What is the boiling point of water at sea level?",
)
"""Any asker gets the same answer."""
NEVER = (
    "What is the weather like in Lyon right now?",
    "What time is it in Tokyo?",
    "What is the latest news about the harbour strike?",
    "Where is my order?",
    "When does my subscription end?",
    "What did I buy last week?",
)
"""The answer depends on the moment or on the asker."""
BACKGROUNDS: tuple[tuple[str, ...], ...] = ((), (), (), ("manual-a",), ("manual-b",), ("manual-a", "manual-b"))

UNREADABLE: tuple[bytes | None, ...] = (
    b'{"request_id": "r-1", "tenant": ',
    b"\xff\xfe\x00 not text",
    b"",
    None,
    b'["request_id"]',
    b'{"tenant": "acme", "feature": "support", "messages": []}',
    b'{"request_id": 7}',
    b"[" * 2_000,
)
INVALID: tuple[dict[str, Any], ...] = (
    {"messages": []},
    {"params": {"api_base": "http://127.0.0.1:1"}},
    {"messages": [{"role": "wizard", "content": "Hello?"}]},
    {"tier": "huge"},
)
MARKERS = ("empty model=mini", "refusal model=mini", "rate_limit times=1", "server_error times=1", "no_usage", "truncated times=1")
"""Faults of single requests; those of the whole provider are in the schedule."""


@dataclass(frozen=True)
class Sent:
    """One record on a request topic."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    uncacheable: bool = False
    """By its author's word, no cache may answer it."""
    within_s: float | None = None
    """Its deadline, from when it is first sent; that moment is nothing a seed can know, so whoever sends it names the time."""


def make(seed: int, number: int) -> list[Sent]:
    draw = random.Random(f"load {seed}")
    records: list[Sent] = []
    ids = iter(range(10 * number))
    kinds: list[tuple[int, Callable[[random.Random, str], Sent]]] = [
        (41, _plain),
        (22, _shared),
        (8, _never),
        (6, _with_documents),
        (6, _marked),
        (3, _late),
        (5, _hurried),
        (3, _invalid),
        (4, _unreadable),
    ]
    while len(records) < number:
        (kind,) = draw.choices([k for _, k in kinds], [w for w, _ in kinds])
        sent = kind(draw, f"r-{seed}-{next(ids):05}")
        records.append(sent)
        if draw.random() < 0.06 and sent.value:
            records.insert(len(records) - draw.randint(0, min(len(records), 40)), sent)
        if kind is _plain and draw.random() < 0.04:
            records.append(_another_body(draw, sent))
    return records[:number]


def _plain(draw: random.Random, name: str) -> Sent:
    words = " ".join(draw.choices(["river", "lamp", "cloud", "iron", "maple", "stone", "paper", "window"], k=draw.randint(3, 30)))
    tier = draw.choice(["auto"] * 8 + ["standard", "heavy"])
    return _ask(
        draw, name, f"How does the {words} of parcel {name} work?", tier=tier, cache={"mode": draw.choice(["auto", "off", "refresh"])}
    )


def _shared(draw: random.Random, name: str) -> Sent:
    return _ask(draw, name, draw.choice(SHARED), documents=_documents(draw.choice(BACKGROUNDS)))


def _never(draw: random.Random, name: str) -> Sent:
    return _ask(draw, name, draw.choice(NEVER), uncacheable=True)


def _with_documents(draw: random.Random, name: str) -> Sent:
    return _ask(draw, name, f"How is part {name} of the machine cleaned?", documents=_documents(draw.choice(BACKGROUNDS[2:]), 40))


def _marked(draw: random.Random, name: str) -> Sent:
    return _ask(draw, name, f"How does {name} behave in the rain? [[fault:{draw.choice(MARKERS)}]]")


def _late(draw: random.Random, name: str) -> Sent:
    return _ask(draw, name, f"How old is {name}?", deadline_at="2020-01-01T00:00:00Z")


def _hurried(draw: random.Random, name: str) -> Sent:
    """A second is about what the fleet needs. Some fail at first, so that the deadline may pass before the next call."""
    fault = draw.choice(["", "", " [[fault:rate_limit times=1]]", " [[fault:server_error times=1]]"])
    return replace(_ask(draw, name, f"How soon does {name} leave?{fault}"), within_s=round(draw.uniform(1, 5), 3))


def _invalid(draw: random.Random, name: str) -> Sent:
    return _ask(draw, name, "How does this end?", **draw.choice(INVALID))


def _unreadable(draw: random.Random, name: str) -> Sent:
    value = draw.choice(UNREADABLE)
    headers: Headers = (("x-odd", b"\xff\xfe\x00"), ("x-none", None), ("x-name", name.encode()))
    return Sent("requests", name.encode() + b"\xff", value, headers)


def _another_body(draw: random.Random, first: Sent) -> Sent:
    body = json.loads(first.value or b"")
    body["messages"][0]["content"] += " And why?"
    body["metadata"] = {"body": "another"}
    return Sent(first.topic, first.key, json.dumps(body).encode())


def _ask(draw: random.Random, name: str, text: str, *, uncacheable: bool = False, **fields: Any) -> Sent:
    tenant = f"{draw.choice(TENANTS)}-{name.split('-')[1]}"
    request = {
        "request_id": name,
        "tenant": tenant,
        "feature": draw.choice(FEATURES),
        "user": draw.choice(USERS),
        "messages": [{"role": "user", "content": text}],
        "metadata": {"body": "first", "n": draw.getrandbits(70)},
    } | fields
    topic = "requests.bulk" if draw.random() < 0.15 else "requests"
    return Sent(topic, name.encode(), json.dumps(request).encode(), uncacheable=uncacheable)


def _documents(names: tuple[str, ...], sentences: int = 3) -> list[dict[str, str]]:
    return [{"id": name, "text": " ".join(_sentences(name, sentences))} for name in names]


def _sentences(name: str, number: int) -> Iterator[str]:
    draw = random.Random(name)
    for n in range(number):
        yield f"Section {n} of {name} says that the {draw.choice(('valve', 'belt', 'filter'))} is cleaned every {draw.randint(2, 90)} days."
