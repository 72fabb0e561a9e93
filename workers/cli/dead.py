"""`scrimp dead list|show|replay`: the dead letters, and sending what died to its topic again.

What a letter holds is shown only where `--body` asks for it: bodies and the record's own headers can hold prompts. Its key is shown, which
users choose: it says whose record it is. A broker that cannot be reached, or topics that are missing, end the command with one line.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.types import LANES

if TYPE_CHECKING:
    from workers.runtime.client import Client
    from workers.runtime.letters import Letter
    from workers.runtime.producer import Outgoing
    from workers.settings import Kafka

app = typer.Typer(
    help="Dead letters: list them, show one, send what died to its topic again.\n\nExample: scrimp dead list --since 2h",
    no_args_is_help=True,
)

CHUNK = 100
"""Records sent, and noted as sent, at a time: so many are repeated at most when a replay is cut off."""
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

Reason = Annotated[str | None, typer.Option(help="Only letters of this reason, such as undecodable.")]
Stage = Annotated[str | None, typer.Option(help="Only letters of this stage.")]
Topic = Annotated[str | None, typer.Option(help="Only what died on this topic, such as llm.requests.")]
Since = Annotated[str | None, typer.Option(help="Only what died from then on: a time such as 2026-12-01T09:00Z, or an age such as 2h.")]
Until = Annotated[str | None, typer.Option(help="Only what died before then.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters are meant."""

    reason: str | None = None
    stage: str | None = None
    topic: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    places: frozenset[str] = frozenset()

    def takes(self, letter: Letter) -> bool:
        return (
            self.reason in (None, letter.reason)
            and self.stage in (None, letter.stage)
            and self.topic in (None, letter.topic)
            and (self.since is None or letter.died_at >= self.since)
            and (self.until is None or letter.died_at < self.until)
            and (not self.places or letter.at in self.places)
        )


@dataclass
class Replay:
    """What a replay comes to: sent, or what would be."""

    sent: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By topic, stage and reason."""
    replayed_before: list[str] = field(default_factory=list)
    unknown_topic: list[str] = field(default_factory=list)
    """No stage reads the topic that these died on."""
    refused: list[str] = field(default_factory=list)
    """The broker would not take these."""
    not_found: list[str] = field(default_factory=list)


@app.command("list")
def list_(
    reason: Reason = None,
    stage: Stage = None,
    topic: Topic = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, help="How many of the latest to show; the counts are of all.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List the dead letters and count them by reason. Of what they hold only their keys are shown, which users choose.

    Example: scrimp dead list --stage cache --since 2h
    """
    from workers.settings import load

    wanted = Wanted(reason, stage, topic, _time(since, "--since"), _time(until, "--until"))
    rows, counts = asyncio.run(_list(load().kafka, wanted, limit))
    if as_json:
        told = [{"topic": t, "stage": s, "reason": r, "count": n} for (t, s, r), n in counts.most_common()]
        print(json.dumps({"total": counts.total(), "counts": told, "letters": rows}, indent=2))
        return
    _table(("letter", "died at", "stage", "reason", "topic", "key", "bytes", "replayed", "error"), [_cells(row) for row in rows])
    for (name, by, why), n in counts.most_common():
        print(f"{n:7}  {why} in {by}, from {name}")
    print(f"{counts.total():7}  in all" + (f"; the latest {limit} are shown" if counts.total() > limit else ""))


@app.command()
def show(
    letter: Annotated[str, typer.Argument(help="Which one: partition:offset, as `scrimp dead list` names it.")],
    body: Annotated[bool, typer.Option("--body", help="Show what it holds, and the record's own headers.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: why, where and when it died, its key, which users choose, and with --body what it holds.

    Example: scrimp dead show 3:17 --body
    """
    from workers.settings import load

    partition, offset = _place(letter)
    found = asyncio.run(_show(load().kafka, partition, offset))
    if found is None:
        print(f"scrimp: no dead letter stands at {letter}", file=sys.stderr)
        raise typer.Exit(1)
    told = _document(found, body)
    if as_json:
        print(json.dumps(told, indent=2))
        return
    for name, value in told.items():
        if name not in ("headers", "value_base64"):
            print(f"{name:14} {_printable(str(value)) if value is not None else '-'}")
    for header in told["headers"]:
        print(f"{'header':14} {_printable(header['name'])}" + (f": {_printable(str(header['value']))}" if body else ""))


@app.command()
def replay(
    letters: Annotated[list[str] | None, typer.Argument(help="Only these: partition:offset. Left out: all that fit the options.")] = None,
    reason: Reason = None,
    stage: Stage = None,
    topic: Topic = None,
    since: Since = None,
    until: Until = None,
    yes: Annotated[bool, typer.Option("--yes", help="Send. Without it, only say what would be sent.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also what was replayed before.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send what died to the topic it died on again, byte for byte. First without --yes: that only says what would be sent.

    Example: scrimp dead replay --reason unpublishable --since 2h --yes
    """
    from workers.settings import load

    places = frozenset("{}:{}".format(*_place(letter)) for letter in letters or ())
    wanted = Wanted(reason, stage, topic, _time(since, "--since"), _time(until, "--until"), places)
    done = asyncio.run(_replay(load().kafka, wanted, send=yes, again=again))
    if as_json:
        counts = [{"topic": t, "stage": s, "reason": r, "count": n} for (t, s, r), n in done.sent.most_common()]
        skipped = {name: sorted(getattr(done, name)) for name in ("replayed_before", "unknown_topic", "refused", "not_found")}
        print(json.dumps({"sent": yes, "total": done.sent.total(), "counts": counts, **skipped}, indent=2))
    else:
        _tell(done, sent=yes)
    if done.not_found or (yes and (done.refused or done.unknown_topic)):
        raise typer.Exit(1)


async def _list(kafka: Kafka, wanted: Wanted, limit: int) -> tuple[list[dict[str, Any]], Counter[tuple[str, str, str]]]:
    from workers.runtime.client import Client

    async with Client(kafka) as client:
        before = await _notes(client)
        rows: list[dict[str, Any]] = []
        counts: Counter[tuple[str, str, str]] = Counter()
        async for letter in _letters(client, wanted):
            counts[letter.topic, letter.stage, letter.reason] += 1
            rows.append(_about(letter) | {"replayed_at": before.get((letter.at, letter.died_at.isoformat()))})
            if len(rows) > 2 * limit + 1_000:
                rows = _latest(rows, limit)
        return _latest(rows, limit), counts


async def _show(kafka: Kafka, partition: int, offset: int) -> Letter | None:
    from workers.runtime import letters
    from workers.runtime.client import Client

    async with Client(kafka) as client:
        name, _ = await _names(client)
        record = await client.record(name, partition, offset)
        return letters.read(record) if record else None


async def _replay(kafka: Kafka, wanted: Wanted, *, send: bool, again: bool) -> Replay:
    from workers.pipeline import STAGES
    from workers.runtime.client import Client

    done, seen = Replay(), set()
    async with Client(kafka) as client:
        there = await client.topics()
        readable = {client.name(t, lane) for stage in STAGES.values() for t in stage.reads for lane in LANES} & there
        before = {} if again else await _notes(client)
        chunk: list[Letter] = []
        async for letter in _letters(client, wanted):
            seen.add(letter.at)
            if letter.topic not in readable:
                done.unknown_topic.append(letter.at)
            elif (letter.at, letter.died_at.isoformat()) in before:
                done.replayed_before.append(letter.at)
            else:
                done.sent[letter.topic, letter.stage, letter.reason] += 1
                chunk.append(letter)
            if len(chunk) == CHUNK:
                await _send(client, chunk if send else (), done)
                chunk.clear()
        await _send(client, chunk if send else (), done)
    done.not_found = sorted(wanted.places - seen)
    return done


async def _send(client: Client, letters: Sequence[Letter], done: Replay) -> None:
    """The records, then the notes that they are out."""
    from workers.runtime.producer import Unpublishable

    _, notes = await _names(client)
    out = list(letters)
    try:
        await client.publish([letter.again() for letter in out])
    except Unpublishable:
        # One of them is refused: each on its own. Those that went out already go out again, which the ledger makes harmless.
        out = []
        for letter in letters:
            try:
                await client.publish([letter.again()])
                out.append(letter)
            except Unpublishable:
                done.refused.append(letter.at)
                done.sent[letter.topic, letter.stage, letter.reason] -= 1
    noted: list[Outgoing] = [letter.note(notes, datetime.now(UTC)) for letter in out]
    await client.publish(noted)


async def _letters(client: Client, wanted: Wanted) -> Any:
    from workers.runtime import letters

    name, _ = await _names(client)
    async for batch in client.read(name):
        for record in batch:
            if (letter := letters.read(record)) and wanted.takes(letter):
                yield letter


async def _notes(client: Client) -> dict[tuple[str, str], str]:
    from workers.runtime import letters

    _, name = await _names(client)
    return letters.replayed([record async for batch in client.read(name) for record in batch])


async def _names(client: Client) -> tuple[str, str]:
    """The topics of the letters and of the notes.

    Raises:
        ProvisionError: one of them is missing.
    """
    from workers import topics
    from workers.runtime.provision import ProvisionError

    names = client.name(topics.DEAD), client.name(topics.REPLAYED)
    if missing := sorted(set(names) - await client.topics()):
        raise ProvisionError(f"missing topics: {', '.join(missing)}; run `scrimp topics apply`")
    return names


def _about(letter: Letter) -> dict[str, Any]:
    return {
        "letter": letter.at,
        "partition": letter.partition,
        "offset": letter.offset,
        "died_at": letter.died_at.isoformat(),
        "stage": letter.stage,
        "reason": letter.reason,
        "error": letter.error,
        "topic": letter.topic,
        "origin": letter.origin,
        "key": letter.record.key,
        "bytes": None if letter.record.value is None else len(letter.record.value),
    }


def _document(letter: Letter, body: bool) -> dict[str, Any]:
    value = letter.record.value
    told = _about(letter) | {"body": "redacted: --body shows it"}
    headers = [{"name": name, "value": None if raw is None or not body else raw.decode(errors="replace")} for name, raw in letter.headers]
    if body:
        told["body"] = None if value is None else value.decode(errors="replace")
        told["value_base64"] = None if value is None else base64.b64encode(value).decode()
    return told | {"headers": headers}


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    names = ("letter", "died_at", "stage", "reason", "topic", "key", "bytes", "replayed_at", "error")
    return tuple("" if row[name] is None else _printable(str(row[name]))[: 19 if name.endswith("_at") else 60] for name in names)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    for row in (head, *rows) if rows else ():
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _tell(done: Replay, *, sent: bool) -> None:
    for (topic, stage, reason), n in done.sent.most_common():
        print(f"{n:7}  {'sent' if sent else 'would be sent'} to {topic} ({reason} in {stage})")
    for places, why in (
        (done.replayed_before, "replayed before; --again sends them once more"),
        (done.unknown_topic, "died on a topic that no stage reads, or that is not there"),
        (done.refused, "refused by the broker"),
        (done.not_found, "not found, or not what the options say"),
    ):
        if places:
            some = ", ".join(sorted(places)[:5]) + (", …" if len(places) > 5 else "")
            print(f"{len(places):7}  {why}: {some}")
    if not sent and done.sent.total():
        print("nothing was sent; --yes sends")
    elif not done.sent.total():
        print("nothing to send")


def _latest(rows: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["died_at"], row["partition"], row["offset"]))[-limit:]


def _printable(text: str) -> str:
    """What came from outside must not steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _place(text: str) -> tuple[int, int]:
    if not re.fullmatch(r"\d{1,9}:\d{1,18}", text, re.ASCII):
        raise typer.BadParameter(f"{text!r} is not partition:offset, such as 3:17")
    partition, _, offset = text.partition(":")
    return int(partition), int(offset)


def _time(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    if age := re.fullmatch(r"(\d{1,6})([smhd])", text, re.ASCII):
        return datetime.now(UTC) - timedelta(**{UNITS[age[2]]: int(age[1])})
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise typer.BadParameter(
            f"{text!r} is neither a time with a zone, such as 2026-12-01T09:00Z, nor an age such as 2h", param_hint=option
        )
    return time
