"""Every metric there is: its name, type, help and buckets, in one table. Data only.

The first eight names are the brief's and never change. Labels are bounded: routes and providers come from configuration,
models outside the catalogue and the configuration count as `other`, statuses and kinds are closed sets.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
FINE = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)


class Family(Struct, frozen=True):
    """`bare`: has no labels, so it shows 0 before anything happened."""

    type: Literal["counter", "gauge", "histogram"]
    help: str
    buckets: tuple[float, ...] = ()
    bare: bool = False


FAMILIES: dict[str, Family] = {
    "http_requests_total": Family("counter", "HTTP requests, by route, method and status code."),
    "http_request_duration_seconds": Family("histogram", "From the request's head to its reply's last byte.", SECONDS),
    "llm_provider_requests_total": Family("counter", "Attempts sent to providers."),
    "llm_provider_errors_total": Family("counter", "Attempts that failed, by kind of fault."),
    "llm_provider_latency_seconds": Family(
        "histogram", "Provider's time: whole reply, or a stream's head to end.", SECONDS
    ),
    "llm_rate_limit_exceeded_total": Family("counter", "Rate limits hit, by scope: provider, its own; key, user, project or tenant, a caller's."),
    "redis_operations_total": Family("counter", "Redis operations that were answered.", bare=True),
    "cache_hit_ratio": Family("gauge", "Share of cacheable requests answered from the cache.", bare=True),
    "llm_time_to_first_token_seconds": Family(
        "histogram", "From request to a stream's first meaningful event.", SECONDS
    ),
    "llm_tokens_total": Family("counter", "Tokens, by direction (input, output, cache_read, cache_write, reasoning)."),
    "llm_cost_usd_total": Family("counter", "Cost of priced replies in USD."),
    "llm_unpriced_replies_total": Family("counter", "Replies whose model has no known price."),
    "llm_fallbacks_total": Family("counter", "Requests that another provider or model took over."),
    "llm_hedges_total": Family("counter", "Requests that were sent to a second target beside a slow first.", bare=True),
    "llm_shadow_requests_total": Family("counter", "Copies of requests sent to shadow targets, by the alias and what became of them."),
    "llm_shadow_duration_seconds": Family("histogram", "How long good copies took; beside http_request_duration_seconds.", SECONDS),
    "llm_gateway_overhead_seconds": Family(
        "histogram", "Our share of a plain request: its time without upstream's.", FINE
    ),
    "llm_gateway_open_connections": Family("gauge", "Client connections open.", bare=True),
    "llm_gateway_open_streams": Family("gauge", "Streams being relayed.", bare=True),
    "llm_gateway_active_requests": Family("gauge", "Requests being served.", bare=True),
    "llm_gateway_upstream_connections": Family("gauge", "Upstream connections, by state."),
    "llm_gateway_body_bytes": Family("gauge", "Request bodies held in memory, in bytes.", bare=True),
    "llm_gateway_journal_rows_total": Family("counter", "Usage rows written to the journal.", bare=True),
    "llm_gateway_journal_waiting_bytes": Family("gauge", "Usage rows in memory that the disk did not take.", bare=True),
    "llm_gateway_journal_errors_total": Family("counter", "Journal writes that failed.", bare=True),
    "llm_gateway_journal_dropped_total": Family(
        "counter", "Usage rows given up (journal.on_error: continue).", bare=True
    ),
    "llm_gateway_journal_lag_rows": Family("gauge", "Usage rows that are not in the database yet, about.", bare=True),
    "llm_gateway_journal_lag_seconds": Family("gauge", "Since when there have been such rows.", bare=True),
    "llm_gateway_journal_loaded_rows_total": Family("counter", "Requests' rows taken from the journal into the database.", bare=True),
    "llm_gateway_journal_refused_lines_total": Family("counter", "Lines of the journal that were put aside, since nobody can read them.", bare=True),
    "llm_gateway_journal_removed_files_total": Family("counter", "Journal files removed: loaded, and older than journal.keep.", bare=True),
    "llm_gateway_usage_purged_rows_total": Family("counter", "Rows and sums taken out of the database: older than usage.keep_days says.", bare=True),
    "llm_gateway_directory_purged_rows_total": Family(
        "counter", "Tenants, projects, users and keys taken out of the database: removed longer ago than database.keep_removed_days says.", bare=True
    ),
    "llm_gateway_database_up": Family("gauge", "1 while the database answers the operator, else 0.", bare=True),
    "llm_gateway_database_failures_total": Family("counter", "Rounds of the journal's loader that failed at the database.", bare=True),
    "llm_gateway_log_dropped_total": Family(
        "counter", "Access-log lines dropped since their sink was full.", bare=True
    ),
    "llm_gateway_directory_serial": Family("gauge", "The change of tenants and keys that workers know of.", bare=True),
    "llm_gateway_directory_differences": Family("gauge", "Changes of tenants and keys that the key table does not hold yet.", bare=True),
    "llm_gateway_directory_failures_total": Family("counter", "Times that tenants and keys could not be read, or their table written.", bare=True),
    "llm_gateway_jwks_age_seconds": Family("gauge", "Since an issuer's public keys were last asked for."),
    "llm_gateway_jwks_failures_total": Family("counter", "Attempts to fetch issuers' public keys that failed.", bare=True),
    "llm_gateway_key_table_errors_total": Family("counter", "Key tables that a worker could not read; it keeps the one before.", bare=True),
    "llm_gateway_gc_pause_seconds_max": Family("gauge", "Longest garbage collection since start.", bare=True),
    "llm_gateway_loop_lag_seconds_max": Family("gauge", "Worst delay of the loop in the last report.", bare=True),
    "llm_gateway_overload_refused_total": Family(
        "counter", "Requests and connections refused for want of room, by reason (connections, streams, loop_lag, body_memory)."
    ),
    "llm_gateway_limit_refused_total": Family(
        "counter", "Requests refused by their callers' own limits, by holder (key, user, ...) and limit (requests, tokens, day, concurrent, budget)."
    ),
    "llm_gateway_budget_topups_total": Family("counter", "Times that streams near what was reserved for them asked for more, by verdict (granted, refused)."),
    "llm_gateway_budget_ended_streams_total": Family("counter", "Streams ended since a hard budget had no more for them.", bare=True),
    "llm_gateway_idempotent_running": Family("gauge", "Requests with an Idempotency-Key under way.", bare=True),
    "llm_gateway_idempotent_keys": Family("gauge", "Idempotency keys remembered.", bare=True),
    "llm_gateway_idempotent_replays_total": Family("counter", "Requests answered with the reply that their Idempotency-Key had before.", bare=True),
    "llm_gateway_cache_requests_total": Family("counter", "Requests, by what the cache had for them (hit, miss, bypass: not cacheable, or not to be)."),
    "llm_gateway_cache_bytes": Family("gauge", "Bytes of replies in the cache.", bare=True),
    "llm_gateway_cache_entries": Family("gauge", "Replies in the cache.", bare=True),
    "llm_gateway_cache_evictions_total": Family("counter", "Replies that had to go for want of room.", bare=True),
    "llm_gateway_cache_saved_usd_total": Family("counter", "What the replies that the cache gave had cost, in USD.", bare=True),
    "llm_gateway_media_fetches_total": Family(
        "counter", "Media fetched for targets that take no addresses, by outcome (fetched, refused, failed, timeout, too_large, full)."
    ),
    "llm_gateway_media_bytes_total": Family("counter", "Bytes of media fetched.", bare=True),
    "llm_gateway_config_generation": Family("gauge", "Generation of the configuration in force.", bare=True),
    "llm_gateway_config_reload_failures_total": Family("counter", "Reloads refused.", bare=True),
    "llm_gateway_credentials_expiry_seconds": Family("gauge", "Seconds until a provider's cloud credentials end."),
    "llm_gateway_credentials_failures_total": Family("counter", "Attempts to fetch cloud credentials that failed."),
    "llm_gateway_provider_healthy": Family("gauge", "1 where traffic and probes find the provider healthy, else 0."),
    "llm_gateway_probes_total": Family("counter", "Probes of providers, by result (up, refused, down)."),
    "llm_gateway_probe_latency_seconds": Family("gauge", "From the last probe's request to its answer; missing where none came."),
    "llm_gateway_audit_lines": Family("gauge", "Number of the audit log's last line.", bare=True),
    "llm_gateway_audit_waiting_lines": Family("gauge", "Audit lines that the disk did not take yet; changes are refused meanwhile.", bare=True),
    "llm_gateway_audit_lost_total": Family("counter", "Audit lines given up, since too many waited.", bare=True),
    "llm_gateway_events_total": Family("counter", "Events, by name."),
    "llm_gateway_webhook_events_total": Family(
        "counter", "What became of events at webhooks (delivered, failed: an attempt, given_up, dropped)."
    ),
    "llm_gateway_webhook_waiting_events": Family("gauge", "Events that a webhook has not taken yet."),
    "llm_gateway_target_held": Family(
        "gauge", "Workers that leave a target alone, by reason (breaker, recovering, cooling, key, model, down)."
    ),
    "llm_gateway_queue_depth": Family("gauge", "Requests waiting for room at their providers' limits.", bare=True),
    "llm_gateway_queue_refused_total": Family("counter", "Requests that found the queue full.", bare=True),
    "llm_gateway_redis_latency_seconds": Family("histogram", "From a command to its reply, as workers see it.", FINE),
    "llm_gateway_redis_errors_total": Family(
        "counter", "Redis operations that came to nothing, by kind (timeout, lost, away, oom, readonly, loading, auth, ...)."
    ),
    "llm_gateway_redis_unavailable": Family("gauge", "Workers that do without Redis: not connected, frozen, or its breaker is open.", bare=True),
    "llm_gateway_redis_stand_in_total": Family(
        "counter", "Requests judged without Redis, by outcome (granted, refused: a limit's local share, closed: a hard budget)."
    ),
    "llm_gateway_redis_waiting_settlements": Family("gauge", "What requests have cost in truth, and Redis does not know yet.", bare=True),
    "llm_gateway_redis_booked_late_total": Family("counter", "Settlements that Redis got when it was back.", bare=True),
    "llm_gateway_replica_messages_total": Family(
        "counter", "What replicas told each other by Redis (sent, heard, dropped: Redis was away too long, refused: not of this gateway)."
    ),
    "llm_gateway_helper_up": Family("gauge", "Workers that have the helper process to ask.", bare=True),
    "llm_gateway_helper_counts_total": Family(
        "counter", "Counts of tokens asked of the helper process, by outcome (exact; estimated instead: late, away, full, large)."
    ),
    "llm_gateway_worker_restarts_total": Family("counter", "Workers restarted.", bare=True),
    "llm_gateway_build_info": Family("gauge", "1, labelled with the version."),
}
