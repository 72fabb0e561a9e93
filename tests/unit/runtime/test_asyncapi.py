"""The AsyncAPI document names every topic, says what stands in it and whom it is for."""

from __future__ import annotations

import pytest

from schemas.types import LANES
from workers.pipeline import STAGES
from workers.runtime.asyncapi import document
from workers.topics import ALERTS, REQUESTS, TOPICS, Topic

MADE = document("x.")
NAMES = {f"x.{topic.on(lane)}": topic for topic in TOPICS for lane in LANES}
ADDRESSES = {name: channel["address"] for name, channel in MADE["channels"].items()}


def test_every_topic_is_in_it_and_nothing_else() -> None:
    assert set(ADDRESSES.values()) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_topic_says_whom_it_is_for(name: str) -> None:
    topic: Topic = NAMES[name]
    told = {channel["description"] for channel in MADE["channels"].values() if channel["address"] == name}
    expected = "public; nothing writes it in this version" if topic is ALERTS else "public" if topic.public else "between stages"
    assert told == {expected}


def test_the_fleet_sends_every_topic_but_the_requests_and_receives_what_its_stages_read() -> None:
    by: dict[str, set[str]] = {"send": set(), "receive": set()}
    for operation in MADE["operations"].values():
        by[operation["action"]].add(ADDRESSES[operation["channel"]["$ref"].removeprefix("#/channels/")])
    assert by["send"] == {name for name, topic in NAMES.items() if topic is not REQUESTS}
    assert by["receive"] == {name for name, topic in NAMES.items() if any(topic in stage.reads for stage in STAGES.values())}


def test_an_alert_has_its_schema() -> None:
    (message,) = MADE["channels"]["x.alerts"]["messages"].values()
    payload = MADE["components"]["messages"][message["$ref"].removeprefix("#/components/messages/")]["payload"]
    assert payload == {"$ref": "#/components/schemas/Alert"}
