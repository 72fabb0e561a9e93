"""One stored answer, and how its vector travels inside events. What does not fit raises ValueError."""

from __future__ import annotations

import base64
import binascii

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from schemas import TokensAround, Usage
from schemas.types import Tier

Vector = NDArray[np.float32]


class Entry(BaseModel):
    """An answer as Qdrant holds it. Fields of a newer version are ignored; the scope changes when their meaning does."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    point_id: str
    scope: str
    tenant: str
    user: str | None
    """Set where the answer is shared with nobody else."""
    asker: str | None = None
    """Digest of the user whose request made the answer (`schemas.types.user_digest`), so that it can go with them."""
    text: str = Field(repr=False)
    """The last user turn that was answered, which the guard compares."""
    form: str | None = None
    """Digest of its scope and form: what entries have in common of which one could answer for the other. None: found exactly, or never."""
    content: str = Field(repr=False)
    finish_reason: str
    tier: Tier
    model: str
    usage: Usage
    """Of the call that made the answer."""
    tokens: TokensAround
    created_at: int
    expires_at: int
    """Both in seconds since 1970. Set when the answer is stored; a hit never moves them."""


def pack(vector: Vector) -> str:
    """Base64 of little-endian float32."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def unpack(packed: str) -> Vector:
    try:
        return np.frombuffer(base64.b64decode(packed, validate=True), dtype="<f4").astype(np.float32)
    except binascii.Error as e:
        raise ValueError(f"not a packed vector: {e}") from e
