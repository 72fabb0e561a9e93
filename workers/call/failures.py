"""What can go wrong with one call to a provider, in a word each, and what it means for the next one and for the books.

Pure: `read` turns an exception of LiteLLM into a `Failure` by what it carries, not by its class, because LiteLLM's classes lie in places:
an Anthropic 529 is a 500, a cut connection is a 500, an OpenAI context overflow in the newer words is a plain bad request, and an exhausted
quota is a rate limit.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import aiohttp

Sent = Literal["no", "answered", "unknown"]
"""no: it never left, nothing to pay. answered: with an error, which costs nothing. unknown: it may have been served and billed."""

TRANSIENT: Final = frozenset({"rate_limited", "overloaded", "server_error", "timeout", "unreachable", "broken"})
"""Outcomes after which the same model may work a little later. Every other failure stays what it is."""

NOT_SENT: Final = "not_sent"
"""We held the call back ourselves: it says nothing about the model."""


@dataclass(frozen=True, slots=True)
class Failure:
    verdict: Literal["error", "context"]
    outcome: str
    sent: Sent
    retry_after: float | None = None
    """Seconds, where the provider said so."""

    @property
    def transient(self) -> bool:
        return self.outcome in TRANSIENT


_STATUS: Final = {
    401: "unauthorized",
    402: "no_credit",
    403: "unauthorized",
    404: "not_found",
    408: "server_error",
    409: "server_error",
    425: "server_error",
    429: "rate_limited",
    503: "overloaded",
    529: "overloaded",
}
_CONTEXT: Final = re.compile(
    r"context_length_exceeded|maximum context length|exceeds? the (model's )?(context window|maximum context|available context size)"
    r"|prompt is too long|input length and `?max_tokens`? exceed|input token count .{0,40}exceeds",
    re.IGNORECASE,
)
_NO_CREDIT: Final = re.compile(r"insufficient_quota|credit balance is too low|billing_error", re.IGNORECASE)
_POLICY: Final = re.compile(r"content_policy_violation|content_filter|content management policy", re.IGNORECASE)
_BEFORE_SENDING: Final = {
    r"^UnsupportedParamsError": "unsupported",
    r"^ImageFetchError": "image_unreachable",  # some providers want images inline, so LiteLLM fetches them first
    r"Missing (credentials|\w+ API [Kk]ey)": "no_key",
    r"LLM Provider NOT provided": "no_provider",
}
"""How LiteLLM says no by itself: these calls never left."""
_NO_CONNECTION: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)
"""The last: a proxy that opens no tunnel."""
_RETRY_INFO: Final = re.compile(r'"retryDelay":\s*"(\d+(?:\.\d+)?)s"')
"""Gemini says in the body how long to wait, never in a header."""


def read(error: BaseException) -> Failure:
    """The failure behind an exception that `litellm.acompletion` raised."""
    response = next(filter(None, map(_http_error, _chain(error))), None)
    if response is not None:
        return _answered(response, error)
    if any(isinstance(link, _NO_CONNECTION) for link in _chain(error)):
        return Failure("error", "unreachable", "no")
    if outcome := next((word for sign, word in _BEFORE_SENDING.items() if re.search(sign, f"{type(error).__name__}: {error}")), None):
        return Failure("error", outcome, "no")
    if any(isinstance(link, TimeoutError | asyncio.TimeoutError) or type(link).__name__ == "Timeout" for link in _chain(error)):
        return Failure("error", "timeout", "unknown")
    return Failure("error", "broken", "unknown")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _http_error(link: BaseException) -> Any | None:
    """The provider's own error answer. LiteLLM invents responses for what never came over the wire; those have no headers."""
    response = getattr(link, "response", None)
    if response is not None and response.headers and response.status_code >= 400:
        return response
    return None


def _answered(response: Any, error: BaseException) -> Failure:
    text = f"{getattr(error, 'code', '')} {getattr(error, 'body', '')} {error}"
    status: int = response.status_code
    if status in (400, 413, 422) and _CONTEXT.search(text):
        return Failure("context", "context", "answered")
    if _NO_CREDIT.search(text):
        return Failure("error", "no_credit", "answered")
    if status == 400 and _POLICY.search(text):
        return Failure("error", "content_policy", "answered")
    outcome = _STATUS.get(status, "server_error" if status >= 500 else "bad_request")
    return Failure("error", outcome, "answered", _retry_after(response.headers, text))


def _retry_after(headers: Any, text: str) -> float | None:
    # A date instead of seconds is legal and nobody sends it: it reads as unsaid.
    for value, unit in ((headers.get("retry-after-ms"), 0.001), (headers.get("retry-after"), 1.0)):
        if value is not None and re.fullmatch(r"\d{1,9}(\.\d+)?", value.strip()):
            return float(value) * unit
    found = _RETRY_INFO.search(text)
    return float(found[1]) if found else None
