"""Rounds and how they are told: the median, with the least and the most, because two shared cores are never quiet."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def line(name: str, values: Sequence[float], unit: str) -> str:
    return f"  {name:<44} {median(values):10.2f} {unit:<6} [{min(values):.2f} - {max(values):.2f}]"


def verdict(name: str, value: float, bound: float, *, at_least: bool) -> str:
    met = value >= bound if at_least else value <= bound
    return f"  {name:<44} {value:10.2f}        {'at least' if at_least else 'at most'} {bound}: {'met' if met else 'NOT MET'}"


def quantile(values: Sequence[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]
