"""The AsyncAPI document names every topic, says what stands in it and whom it is for."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.types import LANES
from workers.pipeline import STAGES
from workers.runtime.asyncapi import document
from workers.topics import REQUESTS, TOPICS, Topic

NAMES = {f"x.{topic.on(lane)}": topic for topic in TOPICS for lane in LANES}


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return document("x.")


def addresses(made: dict[str, Any]) -> dict[str, str]:
    return {name: channel["address"] for name, channel in made["channels"].items()}


def test_every_topic_is_in_it_and_nothing_else(made: dict[str, Any]) -> None:
    assert set(addresses(made).values()) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_topic_says_whom_it_is_for(made: dict[str, Any], name: str) -> None:
    topic: Topic = NAMES[name]
    told = {channel["description"] for channel in made["channels"].values() if channel["address"] == name}
    expected = "public" if topic.public else "between stages"
    assert told == {expected}


def test_the_fleet_sends_every_topic_but_the_requests_and_receives_what_its_stages_read(made: dict[str, Any]) -> None:
    by: dict[str, set[str]] = {"send": set(), "receive": set()}
    for operation in made["operations"].values():
        by[operation["action"]].add(addresses(made)[operation["channel"]["$ref"].removeprefix("#/channels/")])
    assert by["send"] == {name for name, topic in NAMES.items() if topic is not REQUESTS}
    assert by["receive"] == {name for name, topic in NAMES.items() if any(topic in stage.reads for stage in STAGES.values())}


def test_an_alert_has_its_schema(made: dict[str, Any]) -> None:
    (message,) = made["channels"]["x.alerts"]["messages"].values()
    payload = made["components"]["messages"][message["$ref"].removeprefix("#/components/messages/")]["payload"]
    assert payload == {"$ref": "#/components/schemas/Alert"}
