"""One HTTP call to a model. The only place that calls LiteLLM, and the only one that imports it.

LiteLLM retries on its own (twice on its OpenAI path), takes fallbacks, caches, phones for prices and logs prompts; all of it is off here,
so that one call of `complete` is one request on the wire at most. Most of it lives in the wrapper around `litellm.acompletion`, which also
prices every answer a second time and takes as long as the rest of the call; so we call what it wraps (`docs/decisions/0012`).
Nothing of the user's request but its messages and `params` gets in: address and key come from the policy. What goes wrong comes back as a
`Failure`; an exception out of `complete` is a bug, or a cancellation from outside, after which nobody knows whether the call was served.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from inspect import isawaitable
from typing import Any

from schemas import Params, Prompt, Usage
from schemas.types import utc_now
from workers.call.chat import Chat
from workers.call.failures import Failure, read
from workers.call.messages import build
from workers.call.usage import billed
from workers.encoder import tokens
from workers.ledger.types import Answer
from workers.policy import Model

log = logging.getLogger("scrimp.call")

WISHES = frozenset({"temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "reasoning_effort", "parallel_tool_calls"})
"""Parameters that a model may lack and still give the answer that was asked for. Any other one that it lacks rules it out."""
MOST_STOPS = 4
"""OpenAI's limit of stop sequences."""
NEVER_WAITS = frozenset({"openai"})
"""Providers for which LiteLLM makes a request ready without waiting for anything."""
NO_KEY = "unused"
"""For a server of one's own: LiteLLM must not look for a real one in the environment."""


@dataclass(frozen=True, slots=True)
class Reply:
    answer: Answer
    usage: Usage
    estimated: bool
    """The provider named no usage that could be believed; this is our own count."""


class Client:
    """LiteLLM's connections, which are reused. Made by `open_client`, closed by `close`."""

    def __init__(self, litellm: Any, count: Callable[[str], int], record: Callable[..., Any]) -> None:
        self._litellm = litellm
        self._count = count
        self._record = record
        self._chat = Chat(litellm)
        self._supported = lru_cache(maxsize=1024)(self._ask_supported)
        self._told: set[tuple[str, frozenset[str]]] = set()

    async def complete(
        self,
        model: Model,
        prompt: Prompt,
        *,
        max_tokens: int,
        stop: tuple[str, ...] = (),
        instruction: str | None = None,
        api_key: str | None,
        timeout_s: float,
    ) -> Reply | Failure:
        """Ask `model` once. `stop` and `instruction` are the policy's, beside what the prompt has; `timeout_s` is of the whole call."""
        if not api_key and (model.api_key_env or (model.provider == "openai" and not model.api_base)):
            return Failure("error", "no_key", "no")
        asked = _asked(prompt.params, stop)
        lacking = self._lacking(model, asked)
        if lacking - WISHES:
            return Failure("error", "unsupported", "no")
        messages = build(prompt, instruction)
        try:
            # LiteLLM's own time-out starts anew with every byte that comes.
            async with asyncio.timeout(timeout_s):
                response = await self._send(
                    model.litellm,
                    messages,
                    api_base=model.api_base,
                    api_key=api_key or (NO_KEY if model.api_base else None),
                    max_tokens=max_tokens,
                    timeout_s=timeout_s,
                    **{name: value for name, value in asked.items() if name not in lacking},
                )
        except TimeoutError:
            return Failure("error", "timeout", "unknown")
        except self._litellm.exceptions.openai.OpenAIError as e:  # the base of all that LiteLLM raises
            return read(e)
        answer = _answer(response)
        usage = billed(getattr(response, "usage", None), context=model.context, wrote=bool(answer.content or answer.tool_calls))
        if usage is None:
            return Reply(answer, await asyncio.to_thread(self._estimate, messages, answer), estimated=True)
        return Reply(answer, usage, estimated=False)

    async def close(self) -> None:
        """LiteLLM would close its connections at exit too, in another event loop, where the sockets of this one complain."""
        await self._chat.close()
        await self._litellm.close_litellm_async_clients()
        self._litellm.in_memory_llm_clients_cache.flush_cache()  # or a later event loop at the same address would get them back, closed

    async def _send(self, name: str, messages: list[dict[str, Any]], *, timeout_s: float, **asked: Any) -> Any:
        provider, _, bare = name.partition("/")
        try:
            if provider == "openai" and _plain(messages, asked) and self._chat.serves(bare):
                return await self._chat.send(bare, messages, **asked)
            record = self._record(
                model=name,
                messages=messages,
                stream=False,
                call_type="acompletion",
                start_time=utc_now(),
                litellm_call_id="",
                function_id="",
            )
            start = partial(
                self._litellm.main.completion,
                model=name,
                messages=messages,
                acompletion=True,
                litellm_logging_obj=record,
                num_retries=0,
                max_retries=0,
                drop_params=True,  # what it drops now is a wish whose value this model does not take
                timeout=timeout_s,
                **asked,
            )
            # Before it returns what is to be awaited it may read credentials or fetch images, and wait for them.
            pending = start() if provider in NEVER_WAITS else await asyncio.to_thread(start)
            return await pending if isawaitable(pending) else pending
        except Exception as e:
            raise self._litellm.exception_type(model=name, custom_llm_provider=provider, original_exception=e) from e

    def _lacking(self, model: Model, asked: Iterable[str]) -> frozenset[str]:
        """The parameters that the model does not take, said once in the log; none where LiteLLM does not know it."""
        known = self._supported(model.litellm)
        lacking = frozenset() if known is None else frozenset(asked) - known
        if lacking and (model.litellm, lacking) not in self._told:
            self._told.add((model.litellm, lacking))
            log.warning("%s does not take %s", model.litellm, ", ".join(sorted(lacking)))
        return lacking

    def _ask_supported(self, name: str) -> frozenset[str] | None:
        provider, _, bare = name.partition("/")
        known = self._litellm.get_supported_openai_params(model=bare, custom_llm_provider=provider)
        return None if known is None else frozenset(known)

    def _estimate(self, messages: Iterable[dict[str, Any]], answer: Answer) -> Usage:
        said = (answer.content or "") + (json.dumps(answer.tool_calls) if answer.tool_calls else "")
        asked = sum(self._count(_text(m)) + tokens.MESSAGE_TOKENS for m in messages)
        return Usage(input_tokens=asked, output_tokens=self._count(said))


def open_client(count: Callable[[str], int] = tokens.count) -> Client:
    """Imports LiteLLM, 3 to 12 seconds the first time (call it in a thread, at start), and takes its own will away."""
    # Without the first, read at import, it asks the network for its price map; without the second, before calls to Anthropic, for headers.
    # With the third it speaks to OpenAI-shaped servers itself, as to all others, at two thirds of the CPU time of OpenAI's client.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["LITELLM_OFFLINE_MODE"] = "true"
    os.environ["EXPERIMENTAL_OPENAI_BASE_LLM_HTTP_HANDLER"] = "true"
    import litellm
    import litellm.litellm_core_utils.default_encoding
    import litellm.proxy._types  # as the line above: else read at the first call that needs it, for most of a second, in the event loop
    from litellm.litellm_core_utils.litellm_logging import Logging

    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logging.getLogger(name).disabled = True  # its errors quote prompts; failures are ours to report
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    litellm.turn_off_message_logging = True
    litellm.cache = None
    litellm.num_retries = 0
    litellm.modify_params = False
    for kind in (
        "callbacks",
        "input_callback",
        "success_callback",
        "failure_callback",
        "_async_success_callback",
        "_async_failure_callback",
    ):
        setattr(litellm, kind, [])
    return Client(litellm, count, Logging)


def _asked(params: Params, stop: tuple[str, ...]) -> dict[str, Any]:
    asked = params.model_dump(mode="json", exclude_none=True, exclude={"max_tokens", "max_completion_tokens", "stop"})
    # An empty line may well stand inside JSON or a tool's arguments: there the policy's stops would cut good answers.
    ours = () if params.response_format or params.tools else stop
    stops = list(dict.fromkeys(params.stops + ours))[:MOST_STOPS]
    # Providers refuse an empty list of tools, which asks for nothing.
    return {name: value for name, value in (asked | {"stop": stops}).items() if value != []}


def _plain(messages: Iterable[dict[str, Any]], asked: Container[str]) -> bool:
    """Text in turns and nothing else: no tools, images or reasoning effort, for which LiteLLM may have to rewrite or move the request."""
    return (
        "tools" not in asked
        and "reasoning_effort" not in asked
        and all(
            m.keys() == {"role", "content"}
            and isinstance(m["content"], str)
            and (m["role"] in ("user", "assistant") or (i == 0 and m["role"] == "system"))
            for i, m in enumerate(messages)
        )
    )


def _answer(response: Any) -> Answer:
    if not response.choices:
        return Answer(None, None, None)
    choice = response.choices[0]
    message = choice.message
    calls = tuple(_whole(c.model_dump(exclude_none=True)) for c in message.tool_calls or ())
    if not message.content and (refusal := getattr(message, "refusal", None)):
        return Answer(_whole(refusal), calls or None, "content_filter")
    return Answer(_whole(message.content), calls or None, choice.finish_reason)


def _whole(value: Any) -> Any:
    """An answer that was cut inside an emoji can end in half of a surrogate pair, which no event can carry: U+FFFD takes its place."""
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace") if isinstance(value, str) else value


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else json.dumps(content or "")
