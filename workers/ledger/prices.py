"""What a model's tokens cost: the policy's own price, else LiteLLM's price map, else nobody knows.

The map is a JSON file inside the installed litellm package. It is read as a file, once, at first use: importing litellm takes seconds
and 188 MB, and a stage that calls no model must not pay for that. An unknown price is None, never zero; whoever gets None flags it.
An installation without the map is broken: `PriceMapMissing`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from importlib import metadata, util
from pathlib import Path
from typing import Any

from workers.ledger.types import Rates
from workers.policy import Model, Price

PACKAGE = "litellm"
FILE = "model_prices_and_context_window_backup.json"

INPUT = "input_cost_per_token"
OUTPUT = "output_cost_per_token"
REASONING = "output_cost_per_reasoning_token"
CACHED = "cache_read_input_token_cost"
WRITTEN = "cache_creation_input_token_cost"
KINDS = (INPUT, OUTPUT, REASONING, CACHED, WRITTEN)
"""The map's names of the token kinds we price, in dollars per token."""

Entry = Mapping[str, Any]
_LONG_CONTEXT = re.compile(rf"{INPUT}_above_(\d+)k_tokens")


class PriceMapMissing(RuntimeError):
    """There is no litellm package, or it has no price map."""


@dataclass(frozen=True, slots=True)
class PriceMap:
    """LiteLLM's map. Its name stands in the books."""

    name: str
    entries: Mapping[str, Entry]

    def rates(self, model: str) -> Rates | None:
        """The rates of a model by LiteLLM's name for it (`provider/name`); None when the map does not price its tokens.

        Some keys of the map carry their provider and some do not. A bare key counts only if its entry names the same provider:
        what somebody else calls `gpt-4o` does not cost what OpenAI's costs.
        """
        entry = self.entries.get(model)
        if entry is None:
            provider, _, bare = model.partition("/")
            entry = self.entries.get(bare)
            if entry is None or not _same_provider(provider, entry.get("litellm_provider")):
                return None
        return _rates(entry, self.name)


def read(path: Path, source: str) -> PriceMap:
    """The map in the file at `path`, every number exact."""
    entries: dict[str, Entry] = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    return PriceMap(source, entries)


@lru_cache(maxsize=1)
def installed() -> PriceMap:
    """The map of the installed litellm, which is found but not imported.

    Raises:
        PriceMapMissing: the installation is broken.
    """
    spec = util.find_spec(PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / FILE
        if path.is_file():
            return read(path, f"{PACKAGE}-{metadata.version(PACKAGE)}")
    raise PriceMapMissing(f"no {FILE} in the package {PACKAGE}: reinstall it")


def rates(model: Model) -> Rates | None:
    """What a model of the policy costs; None when neither the policy nor the map says."""
    return _policy_rates(model.price) if model.price else installed().rates(model.litellm)


def _policy_rates(price: Price) -> Rates:
    return Rates(
        input=price.input,
        cached_input=price.input if price.cached_input is None else price.cached_input,
        cache_write=price.input if price.cache_write is None else price.cache_write,
        output=price.output,
        source="policy",
    )


def _same_provider(asked: str, listed: object) -> bool:
    # The map splits some providers by the shape of their API: bedrock_converse, vertex_ai-anthropic_models, cohere_chat.
    return isinstance(listed, str) and (listed == asked or listed.startswith((f"{asked}_", f"{asked}-")))


def _rates(entry: Entry, source: str) -> Rates | None:
    by_length = sorted(_by_length(entry), key=lambda step: step[0])
    priced = [(threshold, flat) for threshold, step in by_length if (flat := _flat(step, source))]
    if not priced or len(priced) < len(by_length):
        return None
    (_, base), *above = priced
    return replace(base, above=tuple(above))


def _by_length(entry: Entry) -> Iterator[tuple[int, Entry]]:
    """The entry as it reads for requests of more input tokens than each threshold: the map writes that in two ways."""
    tiers = entry.get("tiered_pricing")
    if isinstance(tiers, list) and all("range" in tier for tier in tiers):
        for tier in tiers:
            yield int(tier["range"][0]), {**entry, **tier}
        return
    yield 0, entry
    for key in entry:
        if found := _LONG_CONTEXT.fullmatch(key):
            suffix = key.removeprefix(INPUT)
            yield int(found[1]) * 1000, {**entry, **{kind: entry[kind + suffix] for kind in KINDS if kind + suffix in entry}}


def _flat(entry: Entry, source: str) -> Rates | None:
    per_million = {kind: Decimal(entry[kind]) * 1_000_000 for kind in KINDS if isinstance(entry.get(kind), int | Decimal)}
    paid, written = per_million.get(INPUT), per_million.get(OUTPUT)
    # In the map a model whose tokens cost nothing is one billed some other way, or one nobody has priced: only a policy can say "free".
    if paid is None or written is None or not (paid or written):
        return None
    return Rates(
        input=paid,
        cached_input=per_million.get(CACHED, paid),
        cache_write=per_million.get(WRITTEN, paid),
        output=written,
        reasoning=per_million.get(REASONING),
        source=source,
    )
