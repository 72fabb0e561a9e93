"""Is this answer good enough to go out? Rules on its form; what it says is nobody's business here.

Pure. A failed check means one tier up (`escalate`) with a word for people and metrics. Two mistakes are possible and both are cheap: a good
answer that looks bad costs one dearer call, a bad one that looks good goes out as a single model would have sent it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from jsonschema import SchemaError, ValidationError  # type: ignore[import-untyped]
from jsonschema.validators import validator_for  # type: ignore[import-untyped]
from referencing import Registry
from referencing.exceptions import Unresolvable

from schemas import Params
from workers.ledger.types import Answer, Verdict

Check = tuple[Verdict, str]

ACCEPTED: Check = ("accepted", "accepted")

_CANNOT = r"i ?(can(no|')t|('m|am) (not able|unable)|won't( be able)?)"
_ACT = r"(to )?(help|assist|do (that|this)|provide|fulfil|comply|answer|discuss|respond|process|generate|share)\b"
_AS_AN_AI = r"as an ai( language)?( model| assistant)?"
_REFUSAL = re.compile(
    "|".join(
        (
            rf"(i('m| am)( very| so| really)? sorry|sorry|i apologi[sz]e|my apologies|unfortunately|{_AS_AN_AI}),? (but )?{_CANNOT}\b",
            rf"{_CANNOT} {_ACT}",
            r"i (must|have to) decline",
            r"(es )?tut mir leid, (aber )?(ich|das|dabei|damit|dazu) kann",
            r"leider (kann|darf) ich",
            r"ich kann (dir |ihnen )?(dabei|damit|dazu|das) (leider )?nicht",
            r"lo siento,? (pero )?no puedo",
            r"no puedo (ayudar|responder|proporcionar|cumplir|asistir)",
            r"(je suis )?désolée?, (mais )?je ne (peux|suis)",
            r"je ne peux pas (vous |t')?(aider|répondre|fournir)",
            r"(desculpe|sinto muito|lamento), (mas )?não posso",
            r"mi dispiace, (ma )?non posso",
            r"(很|非常)?(抱歉|对不起)[，,] ?(但)?我(无法|不能)",
            r"申し訳(ありません|ございません)が",
        )
    ),
    re.IGNORECASE,
)
"""How models decline, at the very beginning of what they say."""


def check(answer: Answer, params: Params, *, limit: int, written: int) -> Check:
    """The verdict (`accepted` or `escalate`) and its word.

    `limit` is the `max_tokens` that was sent, `written` the output tokens that were billed. An answer cut by a limit of ours fails; one cut
    by the limit the user set is what was asked, and no dearer model would say more.
    """
    if answer.tool_calls:
        if answer.finish_reason == "length" or not all(map(_callable, answer.tool_calls)):
            return "escalate", "bad_tool_call"
        return ACCEPTED
    text = (answer.content or "").strip()
    if not text:
        return "escalate", "empty"
    if answer.finish_reason == "content_filter":
        return "escalate", "filtered"
    asked = params.asked_tokens
    cut = answer.finish_reason == "length"
    if cut and not (asked is not None and asked <= limit and written >= asked):
        return "escalate", "truncated"
    if _REFUSAL.match(text.lstrip("*_#> \n").replace("’", "'")):
        return "escalate", "refusal"
    if params.tools and (params.tool_choice == "required" or isinstance(params.tool_choice, Mapping)):
        return "escalate", "no_tool_call"
    if params.response_format and (wrong := _wrong_json(text, params.response_format)):
        return "escalate", wrong
    return ("accepted", "cut_as_asked") if cut else ACCEPTED


def _callable(call: Mapping[str, Any]) -> bool:
    arguments = call.get("function", {}).get("arguments")
    return not arguments or isinstance(_parsed(arguments), dict)


def _wrong_json(text: str, wanted: Mapping[str, Any]) -> str | None:
    if wanted.get("type") == "json_object":
        return None if isinstance(_parsed(text), dict) else "bad_json"
    if wanted.get("type") == "json_schema":
        value = _parsed(text)
        if value is _BROKEN:
            return "bad_json"
        spec = wanted.get("json_schema")
        schema = spec.get("schema") if isinstance(spec, Mapping) else None
        return None if not isinstance(schema, dict) or _fits(value, schema) else "bad_schema"
    return None


_BROKEN = object()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _BROKEN


_MANY_REFS = 16
"""A schema whose references fan out costs exponential time; with so few of them it cannot."""


def _fits(value: Any, schema: dict[str, Any]) -> bool:
    """Does the value match? True where the schema is no help: broken, pointing elsewhere, endless. Nothing is fetched.

    Schemas are the users', and one of them must not keep the process busy for ever: those with regular expressions or many references
    are left alone.
    """
    text = json.dumps(schema)
    if "pattern" in text or text.lower().count('ref"') > _MANY_REFS:
        return True
    kind = validator_for(schema)
    try:
        kind.check_schema(schema)
        kind(schema, registry=Registry()).validate(value)
    except ValidationError:
        return False
    except (SchemaError, Unresolvable, RecursionError):
        return True
    return True
