"""`scrimp report`: where the money went, straight from the ledger's rows. Reads only; exits 1 when there is no ledger."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, get_args
from zoneinfo import ZoneInfo

import typer

from schemas.types import usd

if TYPE_CHECKING:
    from rich.table import Table

    from workers.ledger.queries import Dimension, Figures, Group, Question, Report

BY = ("tenant", "feature", "user", "experiment", "tier", "model", "purpose", "lever", "window")
UNITS = ("minute", "hour", "day", "month")


def report(
    by: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(BY)}; may be repeated. Left out: all of them.")] = None,
    since: Annotated[str | None, typer.Option(help="From this date or time on, such as 2026-12-01T09:00; by the policy's clock.")] = None,
    until: Annotated[str | None, typer.Option(help="Up to and without this time.")] = None,
    window: Annotated[str, typer.Option(help=f"How long the windows are: {', '.join(UNITS)}.")] = "day",
    top: Annotated[int, typer.Option(min=1, help="Rows of a table; the dearest come first, the rest is one row. JSON has all.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Say where the money went: what was spent and saved, and by whom.

    Example: scrimp report --by tenant --by model --since 2026-12-01
    """
    for name in by or ():
        if name not in BY:
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(BY)}", param_hint="--by")
    if window not in UNITS:
        raise typer.BadParameter(f"{window!r} is not one of {', '.join(UNITS)}", param_hint="--window")
    from workers import policy
    from workers.ledger import migrate, queries
    from workers.settings import load

    settings = load()
    timezone = policy.load(settings.policy_file).timezone
    wanted = tuple(dict.fromkeys(by or BY))
    question = queries.Question(
        tuple(name for name in wanted if name in get_args(queries.Dimension)),  # type: ignore[misc]
        _time(since, timezone, "--since"),
        _time(until, timezone, "--until"),
        window,  # type: ignore[arg-type]
        timezone,
    )

    async def ask() -> Report:
        await migrate.check(settings.ledger.url)
        return await queries.report(settings.ledger.url, question)

    found = asyncio.run(ask())
    if as_json:
        print(json.dumps(document(found, question, levers="lever" in wanted), indent=2, ensure_ascii=False))
    else:
        _tell(found, question, wanted, top)


def _time(text: str | None, timezone: str, option: str) -> datetime | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as e:
        raise typer.BadParameter(f"{text!r} is not a date or time such as 2026-12-01 or 2026-12-01T09:00", param_hint=option) from e
    return (time if time.tzinfo else time.replace(tzinfo=ZoneInfo(timezone))).astimezone(UTC)


def document(found: Report, question: Question, *, levers: bool) -> dict[str, Any]:
    """What `--json` prints. Money is decimal strings of dollars; the parts of each `by` add up to `total`."""
    by: dict[str, Any] = {
        dimension: [{dimension: _name(group)} | as_json(figures) for group, figures in _in_order(dimension, groups)]
        for dimension, groups in found.by.items()
    }
    if levers:
        by["lever"] = [{"lever": lever, "saved_usd": saved} for lever, saved in _saved(found.total).items()]
    return {
        "since": _name(question.since),
        "until": _name(question.until),
        "timezone": question.timezone,
        "window": question.unit,
        "total": as_json(found.total),
        "by": by,
    }


def as_json(figures: Figures) -> dict[str, Any]:
    counts = {name: value for name in figures.__slots__ if isinstance(value := getattr(figures, name), int)}
    return {
        **counts,
        "spent_usd": usd(figures.spent_usd),
        "unconfirmed_usd": usd(figures.unconfirmed_usd),
        "cost_usd": usd(figures.cost_usd),
        "baseline_usd": usd(figures.baseline_usd),
        "saved_usd": _saved(figures),
    }


def _saved(figures: Figures) -> dict[str, str]:
    from workers.ledger.queries import LEVERS

    return {lever: usd(getattr(figures, f"{lever}_usd")) for lever in LEVERS}


def _name(group: Group) -> str | None:
    return group.isoformat().replace("+00:00", "Z") if isinstance(group, datetime) else group


def _in_order(dimension: Dimension, groups: Mapping[Group, Figures]) -> Iterable[tuple[Group, Figures]]:
    """Windows by time; all else the dearest first, then by name."""
    if dimension == "window":
        return sorted(groups.items(), key=lambda item: str(item[0]))
    return sorted(groups.items(), key=lambda item: (-item[1].spent_usd - item[1].unconfirmed_usd, -item[1].requests, str(item[0])))


def _tell(found: Report, question: Question, wanted: Iterable[str], top: int) -> None:
    """The report, for people."""
    from rich.console import Console

    console = Console()
    console.print(_table("all", [("", found.total)]))
    for name in wanted:
        if name == "lever":
            console.print(_levers(found.total))
            continue
        rows = list(_in_order(name, found.by[name]))  # type: ignore[index, arg-type]
        shown, rest = (rows[-top:], rows[:-top]) if name == "window" else (rows[:top], rows[top:])
        labelled = [(_label(group, question), figures) for group, figures in shown]
        if rest:
            labelled.append((f"{len(rest)} more", sum((f for _, f in rest[1:]), rest[0][1])))
        console.print(_table(name, labelled))


def _label(group: Group, question: Question) -> str:
    if isinstance(group, datetime):
        local = group.astimezone(ZoneInfo(question.timezone))
        return local.strftime({"month": "%Y-%m", "day": "%Y-%m-%d"}.get(question.unit, "%Y-%m-%d %H:%M %Z"))
    return "(none)" if group is None else group


def _table(title: str, rows: Iterable[tuple[str, Figures]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column(title, no_wrap=True)
    for column in ("requests", "cache hits", "calls", "spent $", "unconfirmed $", "baseline $", "saved $"):
        made.add_column(column, justify="right", no_wrap=True)
    for label, f in rows:
        money = (f.spent_usd, f.unconfirmed_usd, f.baseline_usd, f.saved_usd)
        made.add_row(Text(label), str(f.requests), str(f.cache_hits), str(f.attempts), *map(usd, money))
    made.add_section()
    return made


def _levers(total: Figures) -> Table:
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("lever")
    made.add_column("saved $", justify="right")
    for lever, saved in _saved(total).items():
        made.add_row(lever, saved)
    made.add_section()
    return made
