"""The events of scrimp, as frozen pydantic models. Imports with pydantic alone, so any Python service can use it.

Public: `Request`, `Response`, `CostRecord`, `Alert`. The rest travels between the fleet's own stages.
"""

from schemas.alert import Alert
from schemas.cost import AttemptRecord, CostRecord
from schemas.internal import CachedFrom, CacheKey, CachePlan, Classified, Compressed, Facts, Finished, Missed, Plan, Prompt, TokensAround
from schemas.request import MAX_REQUEST_BYTES, CacheOptions, Document, Message, Params, Request
from schemas.response import UNCLAIMED, Reason, Response, Saved, Usage

__all__ = [
    "MAX_REQUEST_BYTES",
    "UNCLAIMED",
    "Alert",
    "AttemptRecord",
    "CacheKey",
    "CacheOptions",
    "CachePlan",
    "CachedFrom",
    "Classified",
    "Compressed",
    "CostRecord",
    "Document",
    "Facts",
    "Finished",
    "Message",
    "Missed",
    "Params",
    "Plan",
    "Prompt",
    "Reason",
    "Request",
    "Response",
    "Saved",
    "TokensAround",
    "Usage",
]
