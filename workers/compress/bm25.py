"""BM25: how well each sentence of a collection answers a question, by the words they share. Pure.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), equation 3.3, with the idf that stays
positive (as in Lucene).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

K1 = 1.2
"""How fast a repeated term saturates."""
B = 0.5
"""How much a long sentence is discounted. Sentences vary less in length than the documents BM25's usual 0.75 was set on."""


def bm25(sentences: Sequence[Counter[str]], question: Iterable[str]) -> list[float]:
    """One score a sentence, 0 where no term of the question occurs. `sentences` hold term counts."""
    lengths = [s.total() for s in sentences]
    mean = sum(lengths) / max(len(lengths), 1) or 1.0
    scores = [0.0] * len(sentences)
    for term in sorted(set(question)):
        holders = [i for i, s in enumerate(sentences) if term in s]
        idf = math.log(1 + (len(sentences) - len(holders) + 0.5) / (len(holders) + 0.5))
        for i in holders:
            tf = sentences[i][term]
            scores[i] += idf * tf * (K1 + 1) / (tf + K1 * (1 - B + B * lengths[i] / mean))
    return scores
