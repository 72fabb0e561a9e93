"""Who may ask, and how much at once; and what of their words and keys is seen outside: nothing.

One process runs all stages, with keys in its environment and a policy that is changed under it.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.kafka.asking import question, questions
from tests.kafka.books import account, assert_answered_once
from tests.kafka.commands import scrimp
from tests.kafka.fleet import POLICY, Fleet
from tests.kafka.provider import digest
from tests.kafka.topics import Topics, eventually
from tests.servers.process import NotReady

WINDOW = 8
LANES = ("interactive", "bulk")
PROMPT, API_KEY, HMAC_KEY = "heliotrope-of-the-prompt", "heliotrope-of-the-provider", "heliotrope-of-the-tenant"


@pytest.fixture(scope="module")
def fleet(fleet: Fleet) -> Fleet:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("KEY_OF_MODELS", API_KEY)
        environment.setenv("KEY_OF_TENANT", HMAC_KEY)
        _write(fleet, "{unknown: allow}")
        fleet.start("all", call__window=WINDOW, policy_poll_s=0.3, log_level="DEBUG")
    return fleet


async def test_a_tenant_at_its_cap_waits_and_nobody_else(fleet: Fleet, topics: Topics, tenant: str) -> None:
    """Twenty of one tenant that may make two calls at once, in a window of eight: never more than two, each paid once, and others pass."""
    busy = f"{tenant}-busy"
    await _take(fleet, topics, f"{{unknown: allow, {busy}: {{max_in_flight: 2}}}}", tenant)
    fleet.provider.latency(0.3)
    try:
        many, others = questions(busy, 20), questions(tenant, 4)
        await topics.ask(*many, *others)
        assert_answered_once(await account(fleet, topics, [*many, *others]))
    finally:
        fleet.provider.latency(0)
    assert _at_once(fleet, [digest(r) for r in many]) <= 2

    await _take(fleet, topics, f"{{unknown: allow, {busy}: {{max_in_flight: 1}}}}", f"{tenant}-2")
    slow = question(busy, "slow", f"Who is slow at {tenant}? [[fault:hang seconds=5 times=1]]")
    await topics.ask(slow)
    await topics.until(lambda: fleet.provider.counts()[digest(slow)] == 1, "the slow call never came")
    late = question(busy, "late", deadline_at=(datetime.now(UTC) + timedelta(seconds=2)).isoformat())
    await topics.ask(late)
    accounts = await account(fleet, topics, [slow, late])
    assert (accounts["slow"].response["status"], accounts["slow"].calls) == ("answered", 1)
    assert (accounts["late"].response["status"], accounts["late"].calls, accounts["late"].row.sent) == ("expired", 0, [])


async def test_a_policy_whose_topic_is_missing_is_refused_and_taken_once_it_is_there(fleet: Fleet, topics: Topics, tenant: str) -> None:
    own = f"{tenant}.answers"
    refused = _metric(fleet, "scrimp_policy_refused_total")
    _write(fleet, f"{{unknown: reject, {tenant}: {{responses_topic: {own}}}}}")
    told = f"tenants.{tenant}.responses_topic: there is no topic {own}; run `scrimp topics apply`"
    await eventually(_is(lambda: told in _log(fleet, "all")), "the policy was not refused")
    assert _metric(fleet, "scrimp_policy_refused_total") == refused + 1
    stranger = question(f"{tenant}-stranger", "before")
    await topics.ask(stranger)
    assert (await topics.answers([stranger]))["before"]["status"] == "answered", "the old policy stays"

    with pytest.raises(NotReady, match=r"ended with 2"):
        await asyncio.to_thread(fleet.start, "classify")
    assert _log(fleet, "classify").splitlines()[-1].startswith(f"scrimp: {fleet.policy}: {told}")
    assert "Traceback" not in _log(fleet, "classify")

    assert f"created {own}" in await scrimp(fleet, "topics", "apply")
    await _until_refused(topics, f"{tenant}-stranger")
    assert _metric(fleet, "scrimp_policy_refused_total") == refused + 1, "told once"

    _write(fleet, f"{{unknown: allow, {tenant}: {{responses_topic: {fleet.prefix}requests}}}}")
    loop = f"{fleet.prefix}requests is a topic of the fleet's own"
    await eventually(_is(lambda: loop in _log(fleet, "all")), "responses would have become requests")


async def test_watch_shows_a_tenant_with_a_topic_of_its_own(fleet: Fleet, topics: Topics, tenant: str) -> None:
    _write(fleet, f"{{unknown: allow, {tenant}: {{responses_topic: {tenant}.answers}}}}")
    await scrimp(fleet, "topics", "apply")
    environment = fleet._environment({})
    watch = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "workers.cli.main", "watch", env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert watch.stdout is not None
    try:
        shown = asyncio.create_task(watch.stdout.readline())
        asked = 0
        while not shown.done():  # one line a response, of those that come after it began to look
            asked += 1
            await topics.ask(question(tenant, f"watched-{asked}"))
            await asyncio.wait([shown], timeout=1)
        assert b"model" in await shown
    finally:
        watch.send_signal(signal.SIGINT)
        assert await watch.wait() == 0


async def test_nothing_of_prompts_and_keys_is_seen_outside(fleet: Fleet, topics: Topics, tenant: str) -> None:
    """Every kind of failure, with marks in all that is secret; then logs, metrics, headers and error texts are searched for them."""
    signed = f"{tenant}-signed"
    named = f"{signed}: {{hmac_env: KEY_OF_TENANT}}, {tenant}-keyless: {{hmac_env: NOT_SET}}"
    await _take(fleet, topics, f"{{unknown: allow, {named}}}", tenant)
    soon = (datetime.now(UTC) + timedelta(seconds=6)).isoformat()  # what may pass is tried until then
    rest = {"tier": "light", "metadata": {"note": PROMPT}, "documents": [{"text": PROMPT}], "deadline_at": soon}
    kinds = ("bad_request", "content_policy", "context", "server_error", "unauthorized", "truncated", "reset", "invalid_json", "refusal")
    asked = [question(tenant, kind, f"{PROMPT} {tenant} [[fault:{kind}]]", **rest) for kind in kinds]
    asked += [question(signed, "unsigned", PROMPT), question(f"{tenant}-keyless", "keyless", PROMPT)]
    asked += [question(tenant, "invalid", PROMPT) | {"params": {"temperature": PROMPT}, "tier": PROMPT}]
    await topics.ask(*asked)
    by_name = question(signed, "signed", f"{tenant} and a name")
    value = json.dumps(by_name).encode()
    signature = "sha256=" + hmac.new(HMAC_KEY.encode(), value, "sha256").hexdigest()
    await topics.publish("requests", value, headers=(("x-signature", signature.encode()),))
    asked.append(by_name)
    for topic in ("requests", "classified", "missed", "compressed", "finished", "requests.bulk", "finished.bulk"):
        for value in (f'{{"messages": "{PROMPT}'.encode(), json.dumps({"facts": {"metadata": PROMPT}, "prompt": PROMPT}).encode()):
            await topics.publish(topic, value, headers=(("x-note", PROMPT.encode()), ("traceparent", PROMPT.encode())))
    answers = await topics.answers(asked)
    for lane in LANES:
        await topics.quiet(lane)
    broken = f"models: {{mini: {{litellm: openai/mini, api_key_env: '{API_KEY}!'}}}}\ntenants: {{a: {{hmac_key: '{HMAC_KEY}'}}}}\n"
    fleet.policy.write_text(broken)
    await eventually(_is(lambda: "api_key_env: must be the name" in _log(fleet, "all")), "the policy was not refused")

    seen = {f"log of {name}": _log(fleet, name) for name in fleet.processes}
    for page in ("metrics", "readyz", "livez"):
        seen[page] = _page(fleet, page)
    for name in ("compressed", "responses", "costs", "dead"):
        # What users bring along stays theirs: a dead letter keeps it, and garbage of their own is where they put it.
        ours = [tuple(h for h in r.headers if h[0].startswith("x-dead-") or not dict(r.headers).get("x-note")) for r in topics.seen(name)]
        seen[f"headers of {name}"] = repr(ours)
    seen["reasons"] = json.dumps([answer["reason"] for answer in answers.values()])
    seen["cost records"] = repr([r.value for r in topics.seen("costs")])
    assert len(topics.seen("dead")) >= 14
    assert {answers["unsigned"]["reason"]["code"], answers["keyless"]["reason"]["code"]} == {"bad_signature"}
    assert answers["signed"]["status"] == "answered"
    for where, text in seen.items():
        for secret in (PROMPT, API_KEY, HMAC_KEY):
            assert secret not in text, f"{secret} stands in the {where}"


def _write(fleet: Fleet, tenants: str) -> None:
    text = POLICY.format(url=fleet.provider.url).replace("context:", "api_key_env: KEY_OF_MODELS, context:")
    new = fleet.policy.with_suffix(".new")
    new.write_text(f"{text}tenants: {tenants}\n")
    new.replace(fleet.policy)  # at once: a half-written one would be refused and counted too


async def _take(fleet: Fleet, topics: Topics, tenants: str, name: str) -> None:
    """Write the policy and wait until it is followed: then a tenant that only it refuses is refused."""
    _write(fleet, f"{tenants[:-1]}, {name}-keyless-too: {{hmac_env: NOT_SET_EITHER}}}}")
    await _until_refused(topics, f"{name}-keyless-too")


async def _until_refused(topics: Topics, tenant: str) -> None:
    asked = 0

    async def refused() -> bool:
        nonlocal asked
        asked += 1
        one = question(f"{tenant}", f"probe-{asked}")
        await topics.ask(one)
        return (await topics.answers([one]))[one["request_id"]]["status"] == "rejected"

    await eventually(refused, "the policy was never taken")


def _at_once(fleet: Fleet, prompts: list[str]) -> int:
    """The most calls of these prompts that were under way at the provider at the same time."""
    calls = [c for c in fleet.provider.calls() if c["prompt"] in prompts]
    return max(sum(other["arrived"] <= call["arrived"] < other["ended"] for other in calls) for call in calls)


def _is(condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return condition()

    return holds


def _log(fleet: Fleet, name: str) -> str:
    return fleet.folder.joinpath(f"{name}.log").read_text(errors="replace")


def _page(fleet: Fleet, page: str) -> str:
    try:
        with urlopen(f"http://127.0.0.1:{fleet.ports['all']}/{page}", timeout=10) as response:
            text: str = response.read().decode()
    except HTTPError as error:
        text = error.read().decode()
    return text


def _metric(fleet: Fleet, name: str) -> float:
    lines = [line for line in _page(fleet, "metrics").splitlines() if line.startswith(f"{name} ")]
    return float(lines[0].split()[1])
