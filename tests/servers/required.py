"""`SCRIMP_REQUIRE`: the servers for which nothing may stand in, with commas between them. CI sets `kafka,postgres`."""

from __future__ import annotations

import os


def required(name: str) -> bool:
    return name in (word.strip() for word in os.environ.get("SCRIMP_REQUIRE", "").split(","))
