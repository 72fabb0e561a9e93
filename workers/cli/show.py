"""How endings look on a terminal: a live table with a progress bar. Where there is no terminal: one plain line an ending."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from schemas import Response, TokensAround
from schemas.types import usd


@dataclass(frozen=True, slots=True)
class Seen:
    """One ending, with what is known beside it."""

    response: Response
    about: str = ""
    tokens: TokensAround | None = None
    """The prompt around compression; None where it never got there."""


HEAD = ("request", "about", "tier", "source", "tokens", "model", "cost $", "saved $")


def cells(seen: Seen) -> tuple[str, ...]:
    r = seen.response
    outcome = r.source or (f"{r.status}: {r.reason.code}" if r.reason else r.status)
    tokens = f"{seen.tokens.before} → {seen.tokens.after}" if seen.tokens else ""
    who = f"{r.tenant or ''}/{r.request_id}"
    return (who, seen.about or r.feature or "", r.tier or "", outcome, tokens, r.model or "", usd(r.cost_usd), usd(r.saved_usd.total))


def table(endings: Iterable[Seen]) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for title in HEAD:
        made.add_column(title, justify="right" if title.endswith("$") or title == "tokens" else "left", no_wrap=True)
    for seen in endings:
        cached = (seen.response.source or "").startswith("cache")
        style = "green" if cached else "" if seen.response.status == "answered" else "yellow"
        made.add_row(*map(Text, cells(seen)), style=style)
    return made


@contextmanager
def display(console: Console, *, total: int | None = None, rows: int | None = None) -> Iterator[Callable[[Seen], None]]:
    """Yields what takes each ending as it comes. `total` draws a progress bar; `rows` limits the table, by default to the screen."""
    if not console.is_terminal:
        yield lambda seen: console.print(Text("  ".join(cell for cell in cells(seen) if cell)), soft_wrap=True)
        return
    latest: deque[Seen] = deque(maxlen=rows or max(console.height - 6, 3))
    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console)
    task = bar.add_task("answered", total=total) if total is not None else None

    def picture() -> Group:
        return Group(table(latest)) if task is None else Group(table(latest), bar)

    with Live(console=console, transient=total is not None, get_renderable=picture, refresh_per_second=4):

        def show(seen: Seen) -> None:
            latest.append(seen)
            if task is not None:
                bar.advance(task)

        yield show
