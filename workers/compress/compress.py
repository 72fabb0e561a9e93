"""The stage `compress`: drops the sentences of background documents that the question does not need.

Only `documents` change. Messages, the user's question and tools are byte-equal, and so are short documents, code, JSON, tables and
lists of numbers. It only saves money, so anything odd means the original text, and so does an error of its own, which is logged. It ends
no request, retries nothing, parks on nothing.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Callable, Sequence

from schemas import Compressed, Document, Missed, Prompt, TokensAround
from workers.compress.protect import kind
from workers.compress.select import select
from workers.offload import offload
from workers.outcomes import Outcome, emit
from workers.topics import COMPRESSED

log = logging.getLogger("scrimp.compress")

Compress = Callable[[Sequence[Missed]], Awaitable[list[Outcome]]]


def make_compress(*, count: Callable[[str], int], short_tokens: int, observe: Callable[[str, str], None]) -> Compress:
    """`count` gives a text's tokens; documents up to `short_tokens` are left alone.

    `observe(event, reason)` is told once a request: `compressed` or `original`, and why.
    """

    async def compress(events: Sequence[Missed]) -> list[Outcome]:
        # Scoring and counting are CPU alone: they must not hold the event loop.
        done = await offload(lambda: [_one(event, count, short_tokens) for event in events], (event.prompt for event in events))
        outcomes: list[Outcome] = []
        for event, (compressed, why) in zip(events, done, strict=True):
            observe("compressed" if why == "selected" else "original", why)
            outcomes.append(emit(COMPRESSED, compressed, _key(event)))
        return outcomes

    return compress


def _one(event: Missed, count: Callable[[str], int], short_tokens: int) -> tuple[Compressed, str]:
    sizes = [count(d.text) for d in event.prompt.documents]
    around = sum(count(m.text) for m in event.prompt.messages)
    try:
        documents, why = _documents(event.prompt, event.plan.compress_rate, sizes, count, short_tokens)
    except Exception as e:  # noqa: BLE001  a bug in here may cost a saving, never the answer
        log.error("documents stay as they are: %s at %s", type(e).__name__, _where(e))  # the error's own text could quote a document
        documents, why = event.prompt.documents, "error"
    before, after = around + sum(sizes), around + sum(count(d.text) for d in documents)
    if after >= before and why == "selected":
        documents, why, after = event.prompt.documents, "not_smaller", before
    prompt = event.prompt.model_copy(update={"documents": documents}) if why == "selected" else event.prompt
    tokens = TokensAround(before=before, after=after)
    return Compressed.model_validate(dict(event) | {"prompt": prompt, "tokens": tokens}), why


def _documents(
    prompt: Prompt, rate: float | None, sizes: Sequence[int], count: Callable[[str], int], short_tokens: int
) -> tuple[tuple[Document, ...], str]:
    """The documents after compression, and why they are as they are. A document that loses every sentence is left out."""
    original = prompt.documents
    if rate is None:
        return original, "off"
    if not original:
        return original, "no_documents"
    kinds = ["short" if size <= short_tokens else kind(d.text) for d, size in zip(original, sizes, strict=True)]
    prose = [n for n, k in enumerate(kinds) if k is None]
    if not prose:
        return original, next(k for k in kinds if k is not None)
    question = next((m.text for m in reversed(prompt.messages) if m.role == "user"), "")
    selection = select([original[n].text for n in prose], question, rate, count)
    if selection.why != "selected":
        return original, selection.why
    texts = dict(zip(prose, selection.texts, strict=True))
    kept = tuple(d.model_copy(update={"text": texts[n]}) if n in texts else d for n, d in enumerate(original))
    return tuple(d for n, d in enumerate(kept) if n not in texts or d.text.strip()), "selected"


def _where(error: Exception) -> str:
    """File, line and function of an error."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno} {last.name}"


def _key(event: Missed) -> str:
    """The fingerprint, so that identical requests share a partition; what may not share an answer gets a key of its own."""
    if event.cache_key is not None and event.plan.cache.read and event.plan.cache.write:
        return event.cache_key.point_id
    return event.facts.key
