"""How many tokens a provider may count where we count one: learned from what it has billed. Pure, in memory, one figure a model.

Tokenizers differ (LiteLLM counted 977 where Anthropic billed 1,452), and `open` must reserve at least what will be billed. So the figure is
a maximum, not a mean: of the last 500 to 1,000 answers, and a tenth on top. It starts at the policy's `token_margin` and stays at least
there until 500 answers have been seen; from then on it may also fall below, so that budgets are not refused for what is never billed. It
never falls below 1, our own count, nor rises above `MOST`. One absurd bill raises it by a quarter at most (and its tenth), and is forgotten
with the answers around it; a tokenizer that does count more is caught up with in a few. A restart learns anew, from the policy's margin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from workers.policy import Model

MOST = 4.0
"""The policy's own bound of `token_margin`."""
HEADROOM = 1.1
"""Over the most that was seen: the next text may be of another kind."""
STEP = 1.25
"""What one answer can raise the figure by, as a factor."""
ANSWERS = 500
"""Of a generation: the figure looks back on the last full one and the one under way."""
STEPS = 20
"""The figure moves in twentieths, upward: a question asked again is the same question, reservation included."""
FEWEST_TOKENS = 200
"""Of prompts below this by our count, what a provider adds to each message outweighs its tokenizer; nothing is learned from them."""


@dataclass
class _Seen:
    before: float | None = None
    """Highest ratio in the last full generation; None until there is one."""
    most: float = 1.0
    """In the one under way."""
    answers: int = 0


class Margins:
    """The figures of one process, by the model as LiteLLM calls it and where it is served."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str | None], _Seen] = {}

    def of(self, model: Model) -> float:
        """The factor from our count of a prompt to the most that `model` will bill for it."""
        seen = self._seen.get((model.litellm, model.api_base), _Seen())
        at_least = model.token_margin if seen.before is None else seen.before * HEADROOM
        return min(_rounded_up(max(at_least, seen.most * HEADROOM)), MOST) if seen.answers or seen.before else at_least

    def learn(self, model: Model, counted: int, billed: int) -> None:
        """`counted` tokens of a prompt by our count were `billed` as input tokens, cached ones included."""
        if counted < FEWEST_TOKENS:
            return
        ratio = min(billed / counted, self.of(model) * STEP, MOST)
        seen = self._seen.setdefault((model.litellm, model.api_base), _Seen())
        seen.most = max(seen.most, ratio)
        seen.answers += 1
        if seen.answers == ANSWERS:
            seen.before, seen.most, seen.answers = seen.most, 1.0, 0


def _rounded_up(figure: float) -> float:
    return math.ceil(figure * STEPS) / STEPS
