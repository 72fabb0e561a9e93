"""The mutations: what each breaks, where, and which tests must notice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Edit:
    file: str
    old: str
    """Stands in the file exactly once."""
    new: str


@dataclass(frozen=True)
class Mutation:
    breaks: str
    edits: tuple[Edit, ...]
    caught_by: tuple[str, ...]
    """Files with tests. Those that need no server are enough."""

    def apply(self, files: Mapping[str, str]) -> dict[str, str] | None:
        """The text of each file with the mutation in it; None when the code has moved on."""
        mutated = dict(files)
        for edit in self.edits:
            if mutated[edit.file].count(edit.old) != 1:
                return None
            mutated[edit.file] = mutated[edit.file].replace(edit.old, edit.new)
        return mutated


UNIT = "tests/unit"

MUTATIONS: Mapping[str, Mutation] = {
    "commit-before-finish": Mutation(
        "a record's offset is free to commit before its work is done",
        (
            Edit(
                "workers/runtime/intake.py",
                "            try:\n                later = await self._deliver(rest)\n",
                "            for record in rest:\n                self._offsets.finish(tickets[id(record)])\n"
                "            try:\n                later = await self._deliver(rest)\n",
            ),
        ),
        (f"{UNIT}/runtime/test_intake.py",),
    ),
    "no-open": Mutation(
        "a call is made without asking the ledger",
        (Edit("workers/call/call.py", "opened = await ask(this)\n", "opened = Granted(len(attempts) + 1, attempts)\n"),),
        (f"{UNIT}/call/test_call.py",),
    ),
    "open-always-granted": Mutation(
        "no budget refuses a call",
        (Edit("workers/ledger/open.py", "    if refused := _refusal(ask, places, known, counters, now):\n        return refused\n", ""),),
        (f"{UNIT}/ledger/test_ledger_open.py",),
    ),
    "no-drain": Mutation(
        "a stop throws running calls away",
        (Edit("workers/runtime/intake.py", "        await self._drain(None, self._drain_s)\n", ""),),
        (f"{UNIT}/runtime/test_intake.py",),
    ),
    "dead-letter-swallowed": Mutation(
        "a dead letter that cannot be written is forgotten",
        (Edit("workers/runtime/delivery.py", 'raise Fatal(f"a dead letter cannot be written: {error}") from error', "return"),),
        (f"{UNIT}/runtime/test_delivery.py",),
    ),
    "dead-letter-without-bytes": Mutation(
        "a dead letter loses what it was about",
        (Edit("workers/runtime/letters.py", "record.value, (*record.headers, *control)", 'b"", (*record.headers, *control)'),),
        (f"{UNIT}/runtime/test_delivery.py",),
    ),
    "cache-key-without-tenant": Mutation(
        "an answer of one tenant is served to another",
        (Edit("workers/cache/scope.py", '"tenant": facts.tenant,', '"tenant": None,'),),
        (f"{UNIT}/cache/test_scope.py",),
    ),
    "cache-key-without-documents": Mutation(
        "an answer about one document is served for another",
        (Edit("workers/cache/scope.py", '"documents": [_plain(document) for document in prompt.documents],', '"documents": [],'),),
        (f"{UNIT}/cache/test_scope.py",),
    ),
    "cache-without-verdict": Mutation(
        "what depends on the moment or on the asker is cached",
        (
            Edit("workers/cache/cache.py", 'if plan.verdict != "cacheable":', "if False:"),
            Edit("workers/cache/remember.py", 'if plan.verdict != "cacheable":', "if False:"),
        ),
        (f"{UNIT}/cache/test_cache.py",),
    ),
    "settle-without-answer": Mutation(
        "an answer that was paid for is not kept",
        (Edit("workers/ledger/settle.py", "return settlement.answer if", "return None if"),),
        (f"{UNIT}/ledger/test_ledger_settle.py", f"{UNIT}/ledger/test_ledger_open.py"),
    ),
    "settled-twice": Mutation(
        "a repeated settlement is charged again",
        (
            Edit(
                "workers/ledger/settle.py",
                'before not in ("reserved", "unconfirmed")',
                'before not in ("reserved", "unconfirmed", "settled")',
            ),
        ),
        (f"{UNIT}/ledger/test_ledger_settle.py",),
    ),
    "end-overwrites": Mutation(
        "a later ending replaces the first",
        (
            Edit("workers/ledger/end.py", "        elif row.ended:\n", "        elif False:\n"),
            Edit("workers/ledger/end.py", "if not (row.new or row.ended)]", "if not row.new]"),
        ),
        (f"{UNIT}/ledger/test_ledger_end.py",),
    ),
    "lost-is-never-lost": Mutation(
        "what a dead worker reserved stays reserved for ever",
        (Edit("workers/ledger/rows.py", 'return row.state == "reserved" and (until is None or until <= now)', "return False"),),
        (f"{UNIT}/ledger/test_ledger_sweep.py", f"{UNIT}/ledger/test_ledger_open.py"),
    ),
    # LiteLLM's own retries sit in the wrapper that `provider.py` goes around; this is what they do.
    "retry-inside-litellm": Mutation(
        "a call that fails is repeated behind the ledger's back",
        (
            Edit(
                "workers/call/provider.py",
                "            return await pending if isawaitable(pending) else pending\n",
                "            try:\n                return await pending if isawaitable(pending) else pending\n"
                "            except Exception:\n                return await start()\n",
            ),
        ),
        (f"{UNIT}/call/test_client.py",),
    ),
    "retry-of-a-chat": Mutation(
        "a plain chat that fails is repeated behind the ledger's back",
        (
            Edit(
                "workers/call/chat.py",
                "        response = await self._post(url, headers, json.dumps(body).encode())\n",
                "        response = await self._post(url, headers, json.dumps(body).encode())\n"
                "        if response.status_code >= 400:\n"
                "            response = await self._post(url, headers, json.dumps(body).encode())\n",
            ),
        ),
        (f"{UNIT}/call/test_call.py",),
    ),
    "unbounded-call": Mutation(
        "a call has no max_tokens",
        (Edit("workers/call/provider.py", "                    max_tokens=max_tokens,\n", ""),),
        (f"{UNIT}/call/test_call.py",),
    ),
    "call-without-heartbeat": Mutation(
        "a worker that others take for dead sends calls",
        (
            Edit("workers/call/call.py", "        if not may_call():\n            raise ", "        if False:\n            raise "),
            Edit("workers/call/call.py", "(slot.taken and may_call())", "slot.taken"),
        ),
        (f"{UNIT}/call/test_call.py",),
    ),
}
