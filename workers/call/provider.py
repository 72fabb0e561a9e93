"""One HTTP call to a model. The only place that calls LiteLLM, and the only one that imports it.

LiteLLM retries on its own (twice on its OpenAI path), takes fallbacks, caches, phones for prices and logs prompts; all of it is off here,
so that one call of `complete` is one request on the wire at most. Nothing of the user's request but its messages and `params` gets in:
address and key come from the policy. What goes wrong comes back as a `Failure`; an exception out of `complete` is a bug, or a cancellation
from outside, after which nobody knows whether the call was served.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from schemas import Params, Prompt, Usage
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
NO_KEY = "unused"
"""For a server of one's own: LiteLLM's OpenAI client wants some key, and must not find a real one in the environment."""


@dataclass(frozen=True, slots=True)
class Reply:
    answer: Answer
    usage: Usage
    estimated: bool
    """The provider named no usage that could be believed; this is our own count."""


class Client:
    """LiteLLM's connections, which are reused. Made by `open_client`, closed by `close`."""

    def __init__(self, litellm: Any, count: Callable[[str], int], unlogged: Callable[[], AbstractContextManager[None]]) -> None:
        self._litellm = litellm
        self._count = count
        self._unlogged = unlogged
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
        if model.api_key_env and not api_key:
            return Failure("error", "no_key", "no")
        asked = _asked(prompt.params, stop)
        lacking = self._lacking(model, asked)
        if lacking - WISHES:
            return Failure("error", "unsupported", "no")
        messages = build(prompt, instruction)
        try:
            # LiteLLM's own time-out starts anew with every byte that comes.
            async with asyncio.timeout(timeout_s):
                with self._unlogged():
                    response = await self._litellm.acompletion(
                        model=model.litellm,
                        messages=messages,
                        api_base=model.api_base,
                        api_key=api_key or (NO_KEY if model.api_base else None),
                        max_tokens=max_tokens,
                        num_retries=0,
                        max_retries=0,
                        timeout=timeout_s,
                        drop_params=True,  # what it drops now is a wish whose value this model does not take
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
        await self._litellm.close_litellm_async_clients()
        self._litellm.in_memory_llm_clients_cache.flush_cache()  # or a later event loop at the same address would get them back, closed

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
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["LITELLM_OFFLINE_MODE"] = "true"
    import litellm
    from litellm._internal_context import internal_sub_call

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
    # With no callback to tell, it would still build its log entry of every call, prompt and all, at the cost of CPU time.
    return Client(litellm, count, internal_sub_call)


def _asked(params: Params, stop: tuple[str, ...]) -> dict[str, Any]:
    asked = params.model_dump(mode="json", exclude_none=True, exclude={"max_tokens", "max_completion_tokens", "stop"})
    # An empty line may well stand inside JSON or a tool's arguments: there the policy's stops would cut good answers.
    ours = () if params.response_format or params.tools else stop
    stops = list(dict.fromkeys(params.stops + ours))[:MOST_STOPS]
    # Providers refuse an empty list of tools, which asks for nothing.
    return {name: value for name, value in (asked | {"stop": stops}).items() if value != []}


def _answer(response: Any) -> Answer:
    if not response.choices:
        return Answer(None, None, None)
    choice = response.choices[0]
    message = choice.message
    calls = tuple(c.model_dump(exclude_none=True) for c in message.tool_calls or ())
    if not message.content and (refusal := getattr(message, "refusal", None)):
        return Answer(refusal, calls or None, "content_filter")
    return Answer(message.content, calls or None, choice.finish_reason)


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else json.dumps(content or "")
