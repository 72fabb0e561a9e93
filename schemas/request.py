"""`Request`: what users publish to `llm.requests` and `llm.requests.bulk`.

A record that does not fit raises ValidationError; the fleet answers it with `rejected` / `invalid_request` when an id can be read.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from schemas.types import Discreet, Event, Id, Json, JsonObject, RequestId, SchemaVersion, Tenant, Tier, Time

MAX_REQUEST_BYTES = 900_000
"""Hard limit of a request's record value, in bytes."""


class Message(Discreet):
    """One chat message in OpenAI's shape. Fields we do not know stay: what is asked reaches the model as it came."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | tuple[JsonObject, ...] | None = Field(None, repr=False)
    __pydantic_extra__: dict[str, Json] = Field(init=False)

    @model_validator(mode="after")
    def _has_content(self) -> Self:
        if self.content is None and self.role != "assistant":
            raise ValueError(f"a {self.role} message needs content")
        for part in self.content if isinstance(self.content, tuple) else ():
            kind = part.get("type")
            if not isinstance(kind, str) or not kind:
                raise ValueError("each part of a list content needs a type, such as text or image_url")
            if kind == "text" and not isinstance(part.get("text"), str):
                raise ValueError("a part of type text needs a text")
            if kind == "image_url" and not isinstance(part.get("image_url"), dict):
                raise ValueError("a part of type image_url needs an object image_url")
        return self

    @property
    def text(self) -> str:
        """The text of the message; of the list form, its text parts joined by newlines."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(t for part in self.content or () if isinstance(t := part.get("text"), str))


class Document(Event):
    """Background that may be compressed."""

    id: str | None = None
    text: str = Field(repr=False)


class Params(Discreet):
    """What a request may say about the call. Closed: an unknown key is `invalid_request`."""

    model_config = ConfigDict(extra="forbid")

    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    seed: int | None = None
    stop: str | tuple[str, ...] | None = Field(None, repr=False)
    response_format: JsonObject | None = Field(None, repr=False)
    tools: tuple[JsonObject, ...] | None = Field(None, repr=False)
    tool_choice: str | JsonObject | None = Field(None, repr=False)
    parallel_tool_calls: bool | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    frequency_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    reasoning_effort: str | None = None

    @property
    def asked_tokens(self) -> int | None:
        """The output limit the user asked for; the smaller one where both names are given."""
        asked = [n for n in (self.max_tokens, self.max_completion_tokens) if n is not None]
        return min(asked) if asked else None

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else self.stop or ()


class CacheOptions(Event):
    mode: Literal["auto", "off", "refresh"] = "auto"
    ttl_s: int | None = Field(None, ge=0)


class Request(Event):
    """One request. `(tenant, request_id)` is the idempotency key; the last message is what is asked."""

    schema_version: SchemaVersion = 1
    request_id: RequestId
    tenant: Tenant
    feature: Id
    user: Id | None = None
    experiment: Id | None = None
    messages: tuple[Message, ...] = Field(min_length=1)
    documents: tuple[Document, ...] = ()
    params: Params = Params()
    tier: Literal["auto"] | Tier = "auto"
    cache: CacheOptions = CacheOptions()
    compress: Literal["auto", "off"] = "auto"
    deadline_at: Time | None = None
    metadata: JsonObject | None = Field(default_factory=dict, repr=False)

    @model_validator(mode="after")
    def _ends_with_a_question(self) -> Self:
        if self.messages[-1].role not in ("user", "tool"):
            raise ValueError("messages: the last one must be a user or tool message; it is what is asked")
        return self
