"""The messages that are sent: what the user wrote, the documents that are left, and the policy's instruction. Pure.

Every message of the user reaches the model as it came, field for field. Documents become one `user` message right before the last one; an
instruction goes into the system message, never into a user's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from schemas import Document, Message, Prompt

SYSTEM = ("system", "developer")


def build(prompt: Prompt, instruction: str | None) -> list[dict[str, Any]]:
    """The chat messages of one call, in OpenAI's shape."""
    messages = [_as_it_came(m) for m in prompt.messages]
    if background := _background(prompt.documents):
        messages.insert(_place(prompt.messages), background)
    return _instructed(messages, instruction) if instruction else messages


def _as_it_came(message: Message) -> dict[str, Any]:
    return message.model_dump(mode="json", exclude_unset=True)


def _background(documents: Iterable[Document]) -> dict[str, Any] | None:
    parts = [f"[{d.id}]\n{d.text}" if d.id else d.text for d in documents if d.text]
    return {"role": "user", "content": "\n\n".join(parts)} if parts else None


def _place(messages: tuple[Message, ...]) -> int:
    """Before the last message; where that is a tool's result, before the call it answers, since providers refuse anything between them."""
    at = len(messages) - 1
    if messages[at].role == "tool":
        while at > 0 and messages[at].role == "tool":
            at -= 1
        return at if messages[at].role == "assistant" else at + 1
    return at


def _instructed(messages: list[dict[str, Any]], instruction: str) -> list[dict[str, Any]]:
    for i, message in enumerate(messages):
        if message["role"] in SYSTEM:
            content = message["content"]
            added = f"{content}\n\n{instruction}" if isinstance(content, str) else [*content, {"type": "text", "text": instruction}]
            return [*messages[:i], message | {"content": added}, *messages[i + 1 :]]
    return [{"role": "system", "content": instruction}, *messages]
