"""How long the model thinks: not at all, always the same, or lognormal as real ones do."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import repeat

SIGMA = 0.8
"""Spread of the lognormal: with a mean of 100 ms, one call in a hundred takes more than 470 ms."""


def fixed(seconds: float) -> Iterator[float]:
    return repeat(seconds)


def lognormal(mean: float, longest: float, seed: int = 0) -> Iterator[float]:
    """Seconds with this mean (before the cut), never above `longest`; the same sequence for the same seed."""
    draw = random.Random(seed)
    mu = math.log(mean) - SIGMA**2 / 2
    while True:
        yield min(draw.lognormvariate(mu, SIGMA), longest)
