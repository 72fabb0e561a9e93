"""Rates as a row of `price`: content-addressed, in decimal text, so that an attempt keeps the rates it was priced at. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

from workers.ledger.connection import Row
from workers.ledger.types import Rates

_DOLLARS = ("input", "cached_input", "cache_write", "output", "reasoning")


@lru_cache(maxsize=1024)
def price_row(model: str, provider: str, rates: Rates) -> Mapping[str, Any]:
    """The row; its id is a digest of the rest, so equal prices are one row and a changed price is another."""
    fields = {"model": model, "provider": provider, **_to_text(rates), "source": rates.source}
    above = [[threshold, _to_text(over) | {"source": over.source}] for threshold, over in rates.above]
    fields["above"] = json.dumps(above) if above else None
    return {"id": hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:32], **fields}


def rates_of(row: Row) -> Rates | None:
    """The rates of a row that `price` was outer-joined to; None when the price is unknown."""
    return None if row.input is None else _rates(tuple(getattr(row, name) for name in _DOLLARS), row.source, row.above)


@lru_cache(maxsize=1024)
def _rates(texts: tuple[str | None, ...], source: str, above: str | None) -> Rates:
    over = json.loads(above) if above else ()
    return _from_text(
        dict(zip(_DOLLARS, texts, strict=True)),
        source,
        tuple((threshold, _from_text(each, each["source"], ())) for threshold, each in over),
    )


def _to_text(rates: Rates) -> dict[str, str | None]:
    return {name: None if (value := getattr(rates, name)) is None else str(value) for name in _DOLLARS}


def _from_text(texts: dict[str, Any], source: str, above: tuple[tuple[int, Rates], ...]) -> Rates:
    values = {name: None if texts[name] is None else Decimal(texts[name]) for name in _DOLLARS}
    return Rates(**values, source=source, above=above)  # type: ignore[arg-type]  # the columns of all but reasoning are NOT NULL
