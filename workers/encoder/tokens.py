"""Token counts (cl100k_base), from the vocabulary file inside the installed LiteLLM package.

LiteLLM is found, never imported (its import takes seconds), and nothing asks the network. A missing or changed file raises
`TokenizerMissing`. Counting is CPU work, about 0.3 s for the largest request: call it in a thread. Any text has a count; what looks
like a special token (`<|endoftext|>`) is text like any other.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import tiktoken

from schemas import Message, Prompt

MESSAGE_TOKENS = 3
"""What each message costs beside its text, and the start of the reply once more; `name` costs 1. OpenAI cookbook, "How to count tokens with
tiktoken", figures of the gpt-4 family; other providers differ by a few tokens a message, which the policy's `token_margin` covers."""
NAME_TOKENS = 1

LONGEST_TOKEN = 128
"""Bytes of the longest entry of the vocabulary: a text has at least bytes/128 tokens, and at most as many tokens as bytes."""

_URL = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
_FILE = Path("litellm_core_utils", "tokenizers", hashlib.sha1(_URL.encode(), usedforsecurity=False).hexdigest())
"""tiktoken's cache names a file by the SHA-1 of its address; LiteLLM ships such a cache."""
_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
_PATTERN = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
"""cl100k_base's split into words, as tiktoken's `openai_public` has it."""

_CHUNK = 16_384
_UP_TO_A_SPACE = re.compile(rf".{{1,{_CHUNK - 1}}}\S(?= )", re.DOTALL)


class TokenizerMissing(RuntimeError):
    """The vocabulary file is not where the installed LiteLLM keeps it, or is another file."""


@cache
def _encoding() -> tiktoken.Encoding:
    spec = find_spec("litellm")
    folders = (spec.submodule_search_locations if spec else None) or ()
    path = next((p for folder in folders if (p := Path(folder) / _FILE).is_file()), None)
    if path is None:
        raise TokenizerMissing(f"no {_FILE} in the litellm package: install the litellm version of the lock file")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != _SHA256:
        raise TokenizerMissing(f"{path} is not the cl100k_base vocabulary: reinstall litellm")
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, data.splitlines())}
    return tiktoken.Encoding("cl100k_base", pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens={})


def _chunks(text: str) -> Iterator[str]:
    """The text in chunks: one regex match or one merge over a whole 900 kB run is what tokenizers break on.

    A space after something else always begins a new word of `_PATTERN`, so a cut before one changes no count. Where a chunk holds no
    such place (base64, CJK without spaces) it is cut anywhere, which can split a token in two.
    """
    start = 0
    while len(text) - start > _CHUNK:
        at_space = _UP_TO_A_SPACE.match(text, start)
        end = at_space.end() if at_space else start + _CHUNK
        yield text[start:end]
        start = end
    yield text[start:]


def _counts(text: str) -> Iterator[int]:
    encode = _encoding().encode_ordinary
    return (len(encode(chunk)) for chunk in _chunks(text))


def count(text: str) -> int:
    """Tokens of the text. Exact, but for at most a token or two at each cut of a run of over 16,384 characters without a space."""
    return sum(_counts(text))


def more_than(texts: Iterable[str], limit: int) -> bool:
    """Do the texts have more than `limit` tokens together? The tokenizer is asked only when their length does not say, and only as far
    as it takes. Same answer as `sum(map(count, texts)) > limit`."""
    texts = tuple(texts)
    sizes = [_size(text) for text in texts]
    if sum(sizes) <= limit:
        return False
    if sum(-(-size // LONGEST_TOKEN) for size in sizes) > limit:
        return True
    # No entry of the vocabulary reaches from one word into the next.
    if sum(len(text.split()) for text in texts) > limit:
        return True
    left = limit
    for text in texts:
        for n in _counts(text):
            left -= n
            if left < 0:
                return True
    return False


def count_messages(prompt: Prompt) -> int:
    """Input tokens of a prompt, as one call sends it: messages, documents (one user message), tool calls and tool definitions as JSON,
    and what OpenAI adds to each message. Parts without text (images) are not counted."""
    messages = sum(_of_message(m) for m in prompt.messages)
    documents = sum(count(d.text) for d in prompt.documents) + MESSAGE_TOKENS if prompt.documents else 0
    tools = count(json.dumps(prompt.params.tools, ensure_ascii=False)) if prompt.params.tools else 0
    return messages + documents + tools + MESSAGE_TOKENS


def _of_message(message: Message) -> int:
    extra = message.model_extra or {}
    name = count(name) + NAME_TOKENS if isinstance(name := extra.get("name"), str) else 0
    calls = count(json.dumps(calls, ensure_ascii=False)) if (calls := extra.get("tool_calls")) else 0
    return MESSAGE_TOKENS + count(message.text) + name + calls


def _size(text: str) -> int:
    """Bytes of UTF-8; half a surrogate pair counts as the replacement character that the tokenizer makes of it, which is as long."""
    return len(text.encode("utf-8", "surrogatepass"))
