"""What must hold after a run, a function a promise: each gets the `Case` and yields a line for everything that is wrong.

Pure. A request is known by `tenant/request_id`, an answer by the number of the call that it says it comes from, a call by its messages.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cached_property, partial
from typing import Any, Final

from tests.chaos.checker.evidence import Attempt, Call, Evidence, Json, Record, Row

Problems = Iterator[str]

UNCLAIMED = frozenset({"invalid_request", "too_large", "unknown_tenant", "bad_signature", "request_id_conflict", "request_id_used"})
"""Reasons of a rejection that is not stored."""
BROKEN: Final = frozenset({"hang", "drip", "truncated", "reset", "invalid_json"})
"""Faults of the provider after which nobody knows whether the call was served."""
SLACK_S = 2.0
"""What a call takes on its way to the provider, and its answer on its way into the books. As much more on a machine that needs longer than
`START_S` to start the fleet."""
START_S = 30.0
AFTER_S = 10.0
"""How long a database or a broker that is back is still felt: sessions and heartbeats that ran out meanwhile, at six seconds."""
FROZEN: Final = frozenset({"freeze", "coma"})
"""Blows after which a process goes on where it stood, with what it had seen before."""
TO_CALL = frozenset({"kill", "term", "freeze", "coma"})
"""Blows to a process that cut off its calls."""
TO_ALL = frozenset({"database_crash", "broker_crash", "broker_freeze"})
"""Blows to a server after which any process's calls may be without their books."""
TIME: Final = {"requests": timedelta(seconds=120), "requests.bulk": timedelta(hours=24)}
"""From arrival to the deadline of a request that names none."""
NUMBER = re.compile(r"^\[call (\d+)\] ")
DOCUMENT = re.compile(r"^\[(manual-\w+)\]$", re.MULTILINE)
UNIT = Decimal("1e-10")
MICRO = Decimal("0.000001")
LEVERS = ("routing", "cache", "compression", "batch")

Asked = tuple[str, frozenset[str]]
"""The messages as canonical JSON, and the names of the documents."""


@dataclass(frozen=True)
class Readable:
    """What users sent under one id."""

    bodies: tuple[Json, ...]
    """Different ones."""
    copies: tuple[int, ...]
    """How often each."""
    uncacheable: bool
    topic: str


@dataclass
class Case:
    """The evidence, ordered."""

    evidence: Evidence

    @cached_property
    def readable(self) -> dict[str, Readable]:
        """By key; a record is readable when it is an object with an id in it."""
        found: dict[str, list[tuple[str, Json, bool]]] = defaultdict(list)
        for record in self.evidence.sent:
            body = _read(record.value)
            if body is not None:
                found[f"{body['tenant']}/{body['request_id']}"].append((record.topic, body, record.uncacheable))
        return {key: _readable(sent) for key, sent in found.items()}

    @cached_property
    def responses(self) -> dict[str, list[tuple[bytes, Json]]]:
        return _by_key(self.evidence.topics["responses"])

    @cached_property
    def costs(self) -> dict[str, list[tuple[bytes, Json]]]:
        return _by_key(self.evidence.topics["costs"])

    @cached_property
    def endings(self) -> dict[str, list[tuple[bytes, Json]]]:
        """Responses that claim their id: copies of one."""
        return {key: [r for r in found if not _unclaimed(r[1])] for key, found in self.responses.items()}

    @cached_property
    def body_of(self) -> dict[str, Json]:
        """The body that won its id, by what came back of its metadata."""
        return {
            key: body
            for key, copies in self.endings.items()
            if copies and key in self.readable
            for body in self.readable[key].bodies
            if body.get("metadata") == copies[0][1]["metadata"]
        }

    @cached_property
    def calls(self) -> dict[int, Call]:
        return {call.n: call for call in self.evidence.calls}

    @cached_property
    def calls_of(self) -> dict[Asked, list[Call]]:
        found: dict[Asked, list[Call]] = defaultdict(list)
        for call in self.evidence.calls:
            found[_asked_by(call)].append(call)
        return found

    @cached_property
    def deadline_of(self) -> dict[Asked, datetime]:
        """The last one of those who ask it: a call may be for any of them. A copy that names no deadline has its own, by its arrival."""
        found: dict[Asked, datetime] = {}
        for record in self.evidence.sent:
            body = _read(record.value)
            if body is not None and record.at is not None:
                asked, deadline = _asked(body), _deadline(body, record.topic, record.at)
                found[asked] = max(found.get(asked, deadline), deadline)
        return found

    @cached_property
    def rows_of(self) -> dict[Asked, list[Row]]:
        """Requests in the books by what they ask, those of both bodies of a conflict under both."""
        found: dict[Asked, list[Row]] = defaultdict(list)
        for key, row in self.evidence.rows.items():
            for body in self._bodies(key):
                found[_asked(body)].append(row)
        return found

    def _bodies(self, key: str) -> tuple[Json, ...]:
        if key in self.body_of:
            return (self.body_of[key],)
        return self.readable[key].bodies if key in self.readable else ()

    @cached_property
    def paid_by(self) -> dict[int, str]:
        """By the number of a call, whose books have its answer."""
        found = {}
        for key, row in self.evidence.rows.items():
            for attempt in row.attempts:
                number = _number(attempt.answer["content"]) if attempt.answer else None
                if number is not None:
                    found[number] = key
        return found


# ---- endings


def every_readable_request_has_one_ending(case: Case) -> Problems:
    for key, sent in case.readable.items():
        found = case.responses.get(key, [])
        endings = case.endings.get(key, [])
        if not found:
            yield f"{key}: no response"
        if len({value for value, _ in endings}) > 1:
            yield f"{key}: copies of the response differ"
        if len(found) < sum(sent.copies):
            yield f"{key}: sent {sum(sent.copies)} times, answered {len(found)} times"
        if endings and key in case.body_of:
            copies = sent.copies[sent.bodies.index(case.body_of[key])]
            if len(endings) < copies:
                yield f"{key}: sent {copies} times, {len(endings)} copies of its response"
        elif endings:
            yield f"{key}: the response has metadata that nobody sent"
        for _, response in found:
            if response["reason"] and response["reason"]["code"] == "internal":
                yield f"{key}: failed of a bug"
    for key in case.responses.keys() - case.readable.keys():
        yield f"{key}: a response to nobody"


def endings_are_in_the_books(case: Case) -> Problems:
    for key, row in case.evidence.rows.items():
        if row.status is None:
            yield f"{key}: still under way in the books"
    for key, copies in case.endings.items():
        if not copies:
            continue
        value, response = copies[0]
        row = case.evidence.rows.get(key)
        if row is None:
            yield f"{key}: {response['status']} and not in the books"
        elif row.status != response["status"] or row.response != value:
            yield f"{key}: published {response['status']}, booked {row.status}, or other bytes"
    for key, found in case.responses.items():
        if found and not case.endings[key] and key in case.evidence.rows:
            yield f"{key}: {found[0][1]['reason']['code']} does not claim its id, and it is in the books"


def only_the_late_expire(case: Case) -> Problems:
    """And those that came after their deadline do. In between, both may be right: an answer that was paid for goes out late."""
    for key, copies in case.endings.items():
        for _, response in copies[:1]:
            if key not in case.readable:
                continue
            created, finished = _time(response["created_at"]), _time(response["finished_at"])
            deadline = _deadline(case.body_of.get(key, {}), case.readable[key].topic, created)
            if finished < deadline if response["status"] == "expired" else deadline < created:
                yield f"{key}: {response['status']} {(finished - created).total_seconds():.1f} s after its arrival, deadline {deadline}"


def unreadable_records_are_dead_letters(case: Case) -> Problems:
    letters: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for letter in case.evidence.topics["dead"]:
        told = {name: (value or b"").decode() for name, value in letter.headers if name.startswith("x-dead-")}
        letters[told["x-dead-topic"].removeprefix(case.evidence.run["prefix"]), told["x-dead-partition"], told["x-dead-offset"]].append(
            letter
        )
    for record in case.evidence.sent:
        if _read(record.value) is not None:
            continue
        found = letters.pop((record.topic, str(record.partition), str(record.offset)), [])
        if not found:
            yield f"unreadable record at {record.topic} {record.partition} {record.offset}: no dead letter"
        for letter in found:
            if (letter.key, letter.value, letter.headers[: len(record.headers)]) != (record.key, record.value, record.headers):
                yield f"unreadable record at {record.topic} {record.partition} {record.offset}: its dead letter has other bytes"
    for (topic, partition, offset), found in letters.items():
        # A record whose confirmation was lost stands twice on its topic, and the second place is not known.
        if not (topic.startswith("requests") and _read(found[0].value) is None):
            reasons = [v for name, v in found[0].headers if name in ("x-dead-reason", "x-dead-error")]
            yield f"dead letter of {topic} {partition} {offset}: {reasons}"


# ---- books


def every_ending_has_its_cost_record(case: Case) -> Problems:
    for key, copies in case.endings.items():
        if not copies:
            continue
        found = case.costs.get(key, [])
        if not found:
            yield f"{key}: no cost record"
            continue
        by_revision: dict[int, set[bytes]] = defaultdict(set)
        for value, record in found:
            by_revision[record["revision"]].add(value)
        if any(len(values) > 1 for values in by_revision.values()):
            yield f"{key}: one revision of the cost record, several values"
        row = case.evidence.rows.get(key)
        if row is not None and max(by_revision) != row.revision:
            yield f"{key}: cost record {row.revision} in the books, {max(by_revision)} published"
        newest = max(found, key=lambda each: each[1]["revision"])[1]
        states = [a.state for a in row.attempts] if row else []
        if [a["state"] for a in newest["attempts"]] != states:
            yield f"{key}: the cost record's attempts are not the books' {states}"
    for key in case.costs.keys() - {k for k, copies in case.endings.items() if copies}:
        yield f"{key}: a cost record of nobody"


def money_adds_up(case: Case) -> Problems:
    prices: Mapping[str, list[int]] = case.evidence.run["prices"]
    for key, row in case.evidence.rows.items():
        for a in row.attempts:
            into, out = prices[a.model]
            cost = (Decimal(a.input_tokens * into) + a.output_tokens * out) / 1_000_000
            if a.state == "settled" and a.cost * UNIT != cost:
                yield f"{key}: attempt {a.n} is booked at {a.cost * UNIT}, {a.input_tokens} and {a.output_tokens} tokens cost {cost}"
            if a.state == "unconfirmed" and a.cost != a.reserved_usd:
                yield f"{key}: attempt {a.n} is unconfirmed and not at its worst case"
            if a.state == "reserved":
                yield f"{key}: attempt {a.n} is still reserved"
        if row.published_revision != row.revision:
            yield f"{key}: revision {row.revision} is not noted as published"
        found = case.costs.get(key)
        if found:
            record = max(found, key=lambda each: each[1]["revision"])[1]
            if Decimal(record["cost_usd"]) != _dollars(row, "settled"):
                yield f"{key}: the cost record says {record['cost_usd']}, the attempts {_dollars(row, 'settled')}"
            yield from _levers(key, record)
    for key, copies in case.endings.items():
        for _, response in copies[:1]:
            yield from _levers(key, response)
            first = [record for _, record in case.costs.get(key, []) if record["revision"] == 1]
            if first and any(first[0][name] != response[name] for name in ("cost_usd", "baseline_usd", "saved_usd", "usage")):
                yield f"{key}: the response and the first cost record have other figures"


def counters_are_the_sums_of_their_attempts(case: Case) -> Problems:
    dollars: Counter[int] = Counter()
    tokens: Counter[int] = Counter()
    for row in case.evidence.rows.values():
        for a in row.attempts:
            for counter in a.usage_ids:
                dollars[counter] += a.cost
                tokens[counter] += a.used_tokens
    for c in case.evidence.counters:
        spent = (dollars if c.kind == "usd" else tokens)[c.id]
        if (c.reserved, c.spent) != (0, spent):
            yield f"counter {c.scope} {c.kind} {c.window}: {c.spent} spent and {c.reserved} reserved, its attempts say {spent}"


def the_books_verify(case: Case) -> Problems:
    """The product's own audit finds nothing either, and counts what we count."""
    told = case.evidence.verified
    yield from map(str, told["problems"])
    states = Counter(a.state for row in case.evidence.rows.values() for a in row.attempts)
    if (told["requests"], told["attempts"]) != (len(case.evidence.rows), states.total()):
        yield f"it counts {told['requests']} requests and {told['attempts']} attempts, not {len(case.evidence.rows)} and {states.total()}"
    spent = sum(a.cost for row in case.evidence.rows.values() for a in row.attempts if a.state == "settled") * UNIT
    if Decimal(told["spent_usd"]) != spent:
        yield f"it says {told['spent_usd']} spent, not {spent}"


def no_budget_is_passed(case: Case) -> Problems:
    """By the attempts, and where it can be said whose a call is, by the provider's own bill."""
    for budget in case.evidence.run["budgets"]:
        tenant = budget["scope"].get("tenant")
        usd = "limit_usd" in budget
        limit = Decimal(str(budget["limit_usd"])) if usd else Decimal(budget["limit_tokens"])
        by_window: dict[str, Decimal] = defaultdict(Decimal)
        for row in case.evidence.rows.values():
            for a in row.attempts if tenant in (None, row.tenant) else ():
                by_window[_window(a.opened_at, budget["window"])] += a.cost * UNIT if usd else a.used_tokens
        for window, spent in by_window.items():
            if spent > limit and budget["scope"] != {"user": "*"}:
                yield f"budget {budget['scope']}: {spent} of {limit} in {window}"
        if tenant is not None and usd and len(by_window) == 1 and (billed := _billed(case, tenant)) > limit:
            yield f"budget {budget['scope']}: the provider billed {billed} of {limit}"


# ---- calls


def every_call_has_its_attempt(case: Case) -> Problems:
    """And every settled attempt its call: between the settled and all that were sent lie those that were cut off."""
    for asked, calls in case.calls_of.items():
        rows = case.rows_of.get(asked, [])
        attempts = [a for row in rows for a in row.attempts if a.state != "abandoned"]
        if not rows:
            yield f"calls {[c.n for c in calls]}: nobody asked for them"
        elif len(calls) > len(attempts):
            yield f"{[row.key for row in rows]}: {len(calls)} calls, {len(attempts)} attempts"
    for asked, rows in case.rows_of.items():
        settled = sum(a.state == "settled" for row in rows for a in row.attempts)
        if settled > len(case.calls_of.get(asked, [])) and not any(len(case._bodies(row.key)) > 1 for row in rows):
            yield f"{[row.key for row in rows]}: {settled} settled attempts, {len(case.calls_of.get(asked, []))} calls"


def answers_are_those_of_their_calls(case: Case) -> Problems:
    seen: dict[int, str] = {}
    for key, row in case.evidence.rows.items():
        for a in row.attempts:
            number = _number(a.answer["content"]) if a.answer else None
            if _accepted_without_words(a) and len(row.attempts) == 1 and _ended_by_a_model(case, key):
                yield f"{key}: attempt {a.n} is settled without its answer"
            if number is None:
                continue
            call = case.calls.get(number)
            if number in seen:
                yield f"{key}: attempt {a.n} has the answer of call {number}, and so has {seen[number]}"
            seen[number] = key
            if call is None:
                yield f"{key}: attempt {a.n} has the answer of call {number}, which the provider never saw"
            elif not any(_asked(body) == _asked_by(call) for body in case._bodies(key)):
                yield f"{key}: attempt {a.n} has the answer of call {number}, which asked something else"
            elif call.usage and (call.usage["prompt_tokens"], call.usage["completion_tokens"]) != (a.input_tokens, a.output_tokens):
                yield f"{key}: attempt {a.n} is booked with other tokens than call {number} was billed with"


def calls_made_twice_were_cut_off(case: Case) -> Problems:
    """A call whose answer nobody booked was under way when its process was hit, and stands as `unconfirmed` in the books: an attempt each.

    So there are at most as many as were in flight at the blows.
    """
    for asked in case.calls_of:
        answered, attempts = _unbooked(case, asked)
        for call in _without(answered, attempts, partial(_accounts_for, case)):
            told = [(a.n, a.state, a.outcome) for row in case.rows_of.get(asked, []) for a in row.attempts]
            yield f"call {call.n}: answered, paid and not booked, and no blow to its process explains it: {told}"


def no_call_starts_after_its_deadline(case: Case) -> Problems:
    """By the provider's log. A worker looks at the clock last, and then the call is on its way: no longer than `SLACK_S`, but for the time
    in which the worker was frozen. Nothing else excuses it: whatever a server did to a worker, the worker can look again.
    """
    for call in case.evidence.calls:
        if (late := _late_s(case, call)) > SLACK_S * _slower(case):
            yield f"call {call.n}: arrived {late:.1f} s after its deadline, frozen processes allowed for"


def _late_s(case: Case, call: Call) -> float:
    """Seconds from its deadline to its arrival, less those in which a process that may have made it was frozen. Without a request that is
    known: none, and another rule tells of it."""
    asked = _asked_by(call)
    if asked not in case.deadline_of:
        return float("-inf")
    deadline = case.deadline_of[asked].timestamp() - case.evidence.run["clock_s"]  # on the clock of calls and blows
    frozen = dict.fromkeys((a.pid for row in case.rows_of.get(asked, []) for a in row.attempts), 0.0)
    for blow in case.evidence.blows:
        if blow.kind in FROZEN and blow.pid in frozen:
            frozen[blow.pid] += max(0.0, min(blow.ended, call.arrived) - max(blow.began, deadline))
    return call.arrived - deadline - max(frozen.values(), default=0.0)


def _slower(case: Case) -> float:
    """How many times longer than on a machine of our own anything may take here."""
    return max(1.0, case.evidence.run["start_s"] / START_S)


def _accounts_for(case: Case, attempt: Attempt, call: Call) -> bool:
    """This attempt may be of this call: settled without words, timed out after all of its time, or its process was hit during the call."""
    if attempt.state == "settled":
        return True
    if attempt.outcome == "timeout" and attempt.settled_at is not None:
        return (attempt.settled_at - attempt.opened_at).total_seconds() >= case.evidence.run["timeout_s"]
    slower = _slower(case)
    began, ended = call.arrived - SLACK_S * slower, (call.ended or call.arrived) + SLACK_S * slower
    return any(
        began <= blow.ended + (AFTER_S * slower if blow.kind in TO_ALL else 0) and blow.began <= ended
        for blow in case.evidence.blows
        if blow.kind in TO_ALL or (blow.kind in TO_CALL and blow.pid == attempt.pid)
    )


def _without(calls: list[Call], attempts: list[Attempt], accounts_for: Callable[[Attempt, Call], bool]) -> list[Call]:
    """Calls that are left when as many as possible have an attempt of their own that accounts for them (a bipartite matching)."""
    taken: dict[int, Call] = {}

    def place(call: Call, tried: set[int]) -> bool:
        for i, attempt in enumerate(attempts):
            if i not in tried and accounts_for(attempt, call):
                tried.add(i)
                if i not in taken or place(taken[i], tried):
                    taken[i] = call
                    return True
        return False

    return [call for call in calls if not place(call, set())]


def _unbooked(case: Case, asked: Asked) -> tuple[list[Call], list[Attempt]]:
    """Calls that the provider answered and billed and whose answer is in no attempt, but for those that its own fault broke off; and the
    attempts that can account for one: the unconfirmed, and those settled without the provider's words (empty answers, refusals, and late
    settlements)."""
    calls = [c for c in case.calls_of[asked] if c.status in (200, None) and c.fault not in BROKEN and c.n not in case.paid_by]
    attempts = [a for row in case.rows_of.get(asked, []) for a in row.attempts if a.state == "unconfirmed" or _settled_without_words(a)]
    return calls, attempts


def _settled_without_words(attempt: Attempt) -> bool:
    nameless = attempt.answer is None or _number(attempt.answer["content"]) is None
    return attempt.state == "settled" and attempt.outcome not in _ERRORS and nameless


def cut_off(case: Case) -> int:
    """Calls whose answers nobody booked."""
    found = (_unbooked(case, asked) for asked in case.calls_of)
    return sum(max(0, len(calls) - sum(a.state == "settled" for a in attempts)) for calls, attempts in found)


_ERRORS = frozenset({"rate_limited", "overloaded", "server_error", "bad_request"})


def every_call_is_bounded(case: Case) -> Problems:
    for call in case.evidence.calls:
        if not call.max_tokens or call.max_tokens > case.evidence.run["max_tokens"]:
            yield f"call {call.n}: max_tokens {call.max_tokens}"


# ---- the cache


def cached_answers_stay_at_home(case: Case) -> Problems:
    """An answer that its request did not pay for was paid for by the same tenant, for the same question about the same documents."""
    for key, copies in case.endings.items():
        for _, response in copies[:1]:
            if response["status"] != "answered" or key not in case.body_of or (response["source"] == "model" and response["attempts"]):
                continue
            if case.readable[key].uncacheable:
                yield f"{key}: answered by {response['source']}, and no cache may answer it"
            number = _number(response["content"])
            payers = _payers(case, number)
            mine, theirs = case.body_of[key], [case.body_of[payer] for payer in payers if payer in case.body_of]
            if not theirs:
                yield f"{key}: the cached answer {number} is in nobody's books"
            elif mine["tenant"] not in {body["tenant"] for body in theirs}:
                yield f"{key}: has an answer that {payers} paid for"
            elif _asked(mine)[1] not in {_asked(body)[1] for body in theirs}:
                yield f"{key}: has an answer about other documents, of {payers}"
            elif response["source"] == "cache_exact" and _asked(mine) not in map(_asked, theirs):
                yield f"{key}: has an answer to another question, of {payers}"


def _payers(case: Case, number: int | None) -> list[str]:
    """Whose books have the answer of this call. One that came when its request had ended by another copy's cache hit is booked without its
    words: then it is whoever asked the same and has such an attempt."""
    if number is None or number not in case.calls:
        return []
    if number in case.paid_by:
        return [case.paid_by[number]]
    return [row.key for row in case.rows_of.get(_asked_by(case.calls[number]), []) if any(map(_accepted_without_words, row.attempts))]


def _accepted_without_words(attempt: Attempt) -> bool:
    return attempt.state == "settled" and attempt.verdict == "accepted" and attempt.answer is None


def _ended_by_a_model(case: Case, key: str) -> bool:
    return any(response["source"] == "model" for _, response in case.endings.get(key, [])[:1])


# ---- time


def the_fleet_is_steady_again(case: Case) -> Problems:
    yield from case.evidence.run["seen"]


RULES: Final[tuple[Callable[[Case], Problems], ...]] = (
    every_readable_request_has_one_ending,
    endings_are_in_the_books,
    only_the_late_expire,
    unreadable_records_are_dead_letters,
    every_ending_has_its_cost_record,
    money_adds_up,
    counters_are_the_sums_of_their_attempts,
    the_books_verify,
    no_budget_is_passed,
    every_call_has_its_attempt,
    answers_are_those_of_their_calls,
    calls_made_twice_were_cut_off,
    no_call_starts_after_its_deadline,
    every_call_is_bounded,
    cached_answers_stay_at_home,
    the_fleet_is_steady_again,
)


def judge(evidence: Evidence) -> dict[str, list[str]]:
    """By rule, what is wrong; a rule that holds has an empty list."""
    case = Case(evidence)
    return {rule.__name__: list(rule(case)) for rule in RULES}


def figures(evidence: Evidence) -> Json:
    """What the run amounted to. A promise that nothing tested is no news, so these are looked at too."""
    case = Case(evidence)
    responses = [copies[0][1] for copies in case.endings.values() if copies]
    hurried = [
        copies[0][1]["status"]
        for key, copies in case.endings.items()
        if copies and key in case.body_of and _hurried(case.body_of[key], copies[0][1])
    ]
    refused = [r["reason"]["code"] for found in case.responses.values() for _, r in found if r["reason"]]
    attempts = [a for row in evidence.rows.values() for a in row.attempts]
    return {
        "sent": len(evidence.sent),
        "requests": len(case.readable),
        "unreadable": sum(_read(r.value) is None for r in evidence.sent),
        "by_status": dict(Counter(r["status"] for r in responses)),
        "by_source": dict(Counter(r["source"] for r in responses if r["source"])),
        "by_reason": dict(Counter(refused)),
        "of_the_hurried": dict(Counter(hurried)),
        "latest_call_s": round(max(0.0, *(_late_s(case, call) for call in evidence.calls)), 3),
        "copies_beyond_those_asked_for": sum(map(len, case.responses.values())) - sum(sum(s.copies) for s in case.readable.values()),
        "calls": len(evidence.calls),
        "faults": dict(Counter(c.fault for c in evidence.calls if c.fault)),
        "attempts": dict(Counter(a.state for a in attempts)),
        "calls_cut_off": cut_off(case),
        "blows": dict(Counter(b.kind for b in evidence.blows)),
        "steady_s": evidence.run["steady_s"],
        "start_s": evidence.run["start_s"],
    }


# ---- reading


def _read(value: bytes | None) -> Json | None:
    """The body of a record whose id can be read."""
    try:
        body = json.loads(value or b"")
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) and isinstance(body.get("request_id"), str) else None


def _readable(sent: list[tuple[str, Json, bool]]) -> Readable:
    bodies: list[Json] = []
    copies: list[int] = []
    for _, body, _ in sent:
        if body in bodies:
            copies[bodies.index(body)] += 1
        else:
            bodies.append(body)
            copies.append(1)
    return Readable(tuple(bodies), tuple(copies), any(no for _, _, no in sent), sent[-1][0])


def _by_key(records: tuple[Record, ...]) -> dict[str, list[tuple[bytes, Json]]]:
    found: dict[str, list[tuple[bytes, Json]]] = defaultdict(list)
    for record in records:
        found[(record.key or b"").decode()].append((record.value or b"", json.loads(record.value or b"{}")))
    return found


def _unclaimed(response: Json) -> bool:
    return response["reason"] is not None and response["reason"]["code"] in UNCLAIMED


def _number(content: str | None) -> int | None:
    found = NUMBER.match(content or "")
    return int(found[1]) if found else None


def _asked(body: Json) -> Asked:
    return _canonical(body["messages"]), frozenset(d["id"] for d in body.get("documents", ()))


def _asked_by(call: Call) -> Asked:
    """Documents stand in one message of their own, right before the last."""
    messages = list(call.messages)
    if len(messages) > 1 and (found := DOCUMENT.findall(str(messages[-2]["content"]))):
        return _canonical([*messages[:-2], messages[-1]]), frozenset(found)
    return _canonical(messages), frozenset()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _deadline(body: Json, topic: str, arrived: datetime) -> datetime:
    return _time(body["deadline_at"]) if "deadline_at" in body else arrived + TIME[topic]


def _hurried(body: Json, response: Json) -> bool:
    """It named a deadline, and came before it."""
    return "deadline_at" in body and _time(response["created_at"]) < _time(body["deadline_at"])


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _window(at: datetime, name: str) -> str:
    return at.strftime({"minute": "%Y-%m-%d %H:%M", "hour": "%Y-%m-%d %H", "day": "%Y-%m-%d", "month": "%Y-%m"}[name])


def _dollars(row: Row, state: str) -> Decimal:
    return (sum(a.cost for a in row.attempts if a.state == state) * UNIT).quantize(MICRO, ROUND_HALF_EVEN)


def _levers(key: str, told: Json) -> Problems:
    saved = sum((Decimal(told["saved_usd"][lever]) for lever in LEVERS), Decimal(0))
    if Decimal(told["baseline_usd"]) - Decimal(told["cost_usd"]) != saved:
        yield f"{key}: the levers do not add up to baseline less cost"


def _billed(case: Case, tenant: str) -> Decimal:
    """The provider's bill for calls that only this tenant can have made."""
    bill = Decimal(0)
    for asked, calls in case.calls_of.items():
        if {row.tenant for row in case.rows_of.get(asked, [])} == {tenant}:
            for call in calls:
                into, out = case.evidence.run["prices"][call.model]
                if call.usage:
                    bill += Decimal(call.usage["prompt_tokens"] * into + call.usage["completion_tokens"] * out) / 1_000_000
    return bill
