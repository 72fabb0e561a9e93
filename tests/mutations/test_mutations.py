"""Whoever changes what a mutation breaks learns at once that the mutation has to follow. Whether it is caught, `make mutations` shows."""

from __future__ import annotations

import pytest

from tests.kafka.provider import ROOT
from tests.mutations.mutations import MUTATIONS


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_still_applies(name: str) -> None:
    mutation = MUTATIONS[name]
    mutated = mutation.apply({edit.file: (ROOT / edit.file).read_text() for edit in mutation.edits})

    assert mutated is not None, "the code has moved on: mend tests/mutations/mutations.py"
    for file, text in mutated.items():
        compile(text, file, "exec")
    assert all((ROOT / file).exists() for file in mutation.caught_by)
