"""`scrimp demo`: the fleet on this machine, about forty requests in two waves, and what they cost. Exit 1 if a check fails."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from workers.cli.summary import Run


def demo(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document; progress goes to standard error.")] = False,
    provider: Annotated[str | None, typer.Option(help="Use this paid provider instead of the local model: openai, anthropic.")] = None,
) -> None:
    """Answer about forty varied requests on this machine and show what they cost.

    The second wave of requests repeats and rewords the first. Nothing is spent unless --provider is given; SCRIMP_POLICY_FILE is not read.

    Example: scrimp demo --json
    """
    from rich.console import Console

    from workers.cli import play, summary
    from workers.settings import load

    run = asyncio.run(play.demo(load(), provider, Console(stderr=True)))
    if as_json:
        print(json.dumps(summary.figures(run), indent=2))
    else:
        _tell(run)
    if not all(check.ok for check in summary.checks(run)):
        raise typer.Exit(1)


def _tell(run: Run) -> None:
    """The summary, for people."""
    from rich.console import Console
    from rich.text import Text

    from workers.cli import summary
    from workers.cli.show import table

    console = Console()
    if console.is_terminal:
        console.print(table(run.endings))
    f = summary.figures(run)
    tokens, saved = f["tokens"], ", ".join(f"{lever} ${amount}" for lever, amount in f["saved_usd"].items())
    lines = [
        "",
        f"{f['requests']} requests in {f['seconds']} s: {_counts(f['by_status'])}; {_counts(f['by_source'])}; {_counts(f['by_tier'])}",
        f"tokens: prompts {tokens['before']} → {tokens['after']} by compression; billed {tokens['input']} in, {tokens['output']} out",
        f"cost ${f['cost_usd']} instead of ${f['baseline_usd']} on the reference model; saved by {saved}",
        f"served by {f['served_by']}, priced by {f['priced_by']}",
        f"calls counted by the model server: {f['provider_calls'] if run.calls else 'unknown'}; attempts in the books: {f['attempts']}",
        "",
    ]
    for line in lines:
        console.print(Text(line), soft_wrap=True)
    for check in summary.checks(run):
        mark = Text("ok    ", style="green") if check.ok else Text("FAILED", style="bold red")
        console.print(mark, Text(f"{check.name} ({check.found})"), soft_wrap=True)


def _counts(counted: dict[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in counted.items())
