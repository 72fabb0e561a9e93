"""Every metric once, with what it means. Counted per batch where a stage works in batches. Labels never hold tenants, users or text."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

RECORDS = Counter("scrimp_records_total", "Records a stage is done with, by what became of them.", ["stage", "lane", "outcome"])
"""outcome: emit, answered, rejected, expired, failed, retry, dead."""

BATCH_SECONDS = Histogram(
    "scrimp_batch_seconds",
    "Time from taking a batch (or one record, in `call`) to its last publish.",
    ["stage", "lane"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)

RUNNING = Gauge("scrimp_running", "Batches (records, in `call`) being worked on.", ["stage", "lane"])
UNCOMMITTED = Gauge("scrimp_uncommitted_records", "Records started and not yet committed.", ["stage", "lane"])
LAG = Gauge("scrimp_lag_records", "Records of a process's partitions that are not committed yet.", ["stage", "lane"])
"""The lag of a consumer group is the sum over its processes; nobody tells it while none runs."""
WAITING_TURN = Gauge("scrimp_waiting_turn", "Requests of tenants at their cap, waiting outside the window of `call`.", ["lane"])
PARKED = Gauge("scrimp_parked", "1 while a stage waits for a dependency that is down.", ["stage", "lane", "dependency"])
UP = Gauge("scrimp_up", "1 while a dependency of this process answers, 0 while it does not.", ["dependency"])
"""dependency: kafka, ledger, qdrant, provider (0 while a model fails for everybody)."""
COMMIT_FAILURES = Counter("scrimp_commit_failures_total", "Offset commits that failed; the records are read again.", ["stage", "lane"])
DEAD_LETTERS = Counter("scrimp_dead_letters_total", "Records written to llm.dead.", ["stage", "lane", "reason"])
STANDSTILL = Gauge("scrimp_standstill", "1 while a consumer takes nothing although there are records for it.", ["stage", "lane"])
RIGHT_MISSING = Gauge("scrimp_right_missing", "1 while the broker refuses a consumer a right that it needs.", ["stage", "lane"])
"""A right to write that is missing parks the stage on kafka; at a start `scrimp_up` of kafka is 0."""
RENEWALS = Counter("scrimp_renewals_total", "Consumers that stood still and were made anew.", ["stage", "lane"])
REBALANCES = Counter("scrimp_rebalances_total", "Revocations this consumer went through.", ["stage", "lane"])

CACHE = Counter("scrimp_cache_total", "What the cache did with a request.", ["event", "reason"])
COMPRESS = Counter("scrimp_compress_total", "What the compressor did with a document.", ["event", "reason"])
ATTEMPTS = Counter("scrimp_attempts_total", "Provider calls, by the policy's model name and outcome.", ["model", "outcome"])
SETTLEMENTS_REFUSED = Counter("scrimp_settlements_refused_total", "Settlements kept while the ledger was away, which it then refused.")
OVERRUNS = Counter("scrimp_overruns_total", "Provider calls that came to more than was reserved for them.", ["model", "why"])
"""why: output (more than max_tokens), input (it counts the prompt otherwise than we do), price (billed by no known rate)."""

# The label `feature` is one of the policy's `features`, or `other`.
REQUESTS = Counter("scrimp_requests_total", "Ended requests.", ["lane", "feature", "status", "tier", "source"])
REQUEST_SECONDS = Histogram(
    "scrimp_request_seconds",
    "Time from a request's arrival on its topic to its ending.",
    ["lane", "status"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 600, 3_600, 21_600, 86_400, 259_200),
)
REFUSED = Counter("scrimp_refused_total", "Ended requests that got no answer, by the reason.", ["lane", "feature", "status", "reason"])
"""Rejections that claim no id (not a request, unknown tenant, bad signature) are in `scrimp_records_total` alone."""
COST_USD = Counter("scrimp_cost_usd_total", "Dollars spent (settled attempts).", ["lane", "feature", "model"])
UNCONFIRMED_USD = Counter("scrimp_unconfirmed_usd_total", "Worst case of calls that were cut off, and may be paid.", ["lane", "feature"])
BASELINE_USD = Counter("scrimp_baseline_usd_total", "What the reference model would have cost.", ["lane", "feature"])
SAVED_USD = Gauge("scrimp_saved_usd", "Dollars saved since start, by lever; a lever can be negative.", ["lane", "lever"])
PRICE_UNKNOWN = Counter("scrimp_price_unknown_total", "Ended requests with an attempt whose price nobody knows.", ["model"])
REVISIONS = Counter("scrimp_cost_revisions_total", "CostRecords published again because a late settlement changed them.")
ALERTS = Counter("scrimp_alerts_total", "Alerts published to llm.alerts.", ["kind"])
ROUNDS_REFUSED = Counter("scrimp_rounds_refused_total", "Rounds of `attribute` whose records the broker refused; tried again.", ["what"])
"""what: sweep (revised CostRecords), alerts."""
POLICY_REFUSED = Counter("scrimp_policy_refused_total", "Changes of the policy file that were refused; the old policy stays.")
