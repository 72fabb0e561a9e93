"""`SCRIMP_REQUIRE`: the servers for which nothing may stand in, with commas between them. CI sets `kafka,postgres`.

And the tools without which tests are skipped elsewhere: `make deploy-test` adds `helm,compose`, CI `prometheus,kcat` to these.
"""

from __future__ import annotations

import os

import pytest

SERVERS = ("kafka", "postgres")
TOOLS = ("helm", "compose", "prometheus", "kcat")


def required(name: str) -> bool:
    return name in _words()


def long(how_long: str) -> pytest.MarkDecorator:
    """The mark of tests for which the minutes of `make test` are too few."""
    return pytest.mark.skipif(not required("compose"), reason=f"{how_long}: `make deploy-test` does it")


def unknown() -> list[str]:
    """What stands in SCRIMP_REQUIRE and names nothing: a typing error there would let a stand-in pass."""
    return [word for word in _words() if word not in SERVERS + TOOLS]


def _words() -> list[str]:
    return [word.strip() for word in os.environ.get("SCRIMP_REQUIRE", "").split(",") if word.strip()]
