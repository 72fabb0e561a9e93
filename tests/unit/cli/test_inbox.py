from __future__ import annotations

from pydantic import BaseModel

from schemas import Facts, Finished, Response
from tests.unit.cli.endings import AT, record, refused, response
from workers.cli.inbox import Inbox
from workers.runtime.client import Record


def came(topic: str, key: str, event: BaseModel, *, partition: int = 0, offset: int = 0) -> Record:
    return Record(f"llm.{topic}", partition, offset, key, event.model_dump_json().encode(), (), AT)


def finished(key: str, *, partition: int = 0, offset: int = 0) -> Record:
    tenant, _, request_id = key.partition("/")
    facts = Facts(
        request_id=request_id,
        tenant=tenant,
        feature="zoo",
        user=None,
        experiment=None,
        lane="interactive",
        body_hash="0" * 64,
        created_at=AT,
        deadline_at=AT,
        trace_id="0" * 32,
    )
    return came("finished", key, Finished(facts=facts, status="answered"), partition=partition, offset=offset)


def inbox() -> Inbox:
    return Inbox({"acme/a": "short", "acme/b": "malformed"}, "llm.")


def answer(key: str, what: Response) -> Record:
    return came("responses", key, what)


def test_a_new_ending_is_shown_once_and_those_of_others_never() -> None:
    box = inbox()
    first = answer("acme/a", response("a"))
    assert [(s.about, s.response.request_id) for s in box.take([first, answer("acme/x", response("x"))])] == [("short", "a")]
    assert box.take([first]) == []


def test_a_request_is_complete_with_its_response_its_event_and_its_cost_record() -> None:
    needed = [answer("acme/a", response("a")), finished("acme/a"), came("costs", "acme/a", record(response("a")))]
    for missing in needed:
        box = inbox()
        box.take([r for r in needed if r is not missing])
        assert not box.complete(["acme/a"])
    box = inbox()
    box.take(needed)
    assert box.complete(["acme/a"])
    assert not box.complete(["acme/a", "acme/b"])


def test_a_refusal_that_claims_no_id_needs_no_cost_record() -> None:
    box = inbox()
    box.take([answer("acme/b", refused("b", "invalid_request")), finished("acme/b")])
    assert box.complete(["acme/b"])


def test_the_cache_has_caught_up_past_the_last_event_of_each_partition() -> None:
    box = inbox()
    box.take(
        [finished("acme/a", partition=1, offset=7), finished("acme/b", partition=1, offset=3), finished("acme/c", partition=2, offset=0)]
    )
    assert box.past_finished() == {("llm.finished", 1): 8, ("llm.finished", 2): 1}


def test_a_null_value_is_passed_over() -> None:
    assert inbox().take([Record("llm.responses", 0, 0, "acme/a", None, (), AT)]) == []
