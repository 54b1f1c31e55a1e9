"""The fault matrix: what may go wrong, and what is promised then. Data only; the tests are marked with its numbers."""

from __future__ import annotations

# number: (fault, what is promised)
MATRIX: dict[int, tuple[str, str]] = {
    1: ("An upstream refuses or resets the connection", "Fallback in less than 100 ms"),
    2: ("An upstream is blackholed", "Connect timeout of 5 s, then fallback"),
    3: ("An upstream stops before its headers (limit set to 1 s)", "First-chunk timeout, fallback, its socket closed"),
    4: ("An upstream stops mid-stream (limit set to 1 s)", "Silence timeout: error event; usage recorded"),
    5: ("An upstream is killed or resets mid-stream", "Error event within 1 s, no `[DONE]`"),
    6: ("A clean end without finish", "Error event"),
    7: ("150 ms more each way", "Only added latency; nobody ejected"),
    8: ("5 % of packets lost", "At least 99.9 % succeed"),
    9: ("A link of 8 kB/s", "Not killed as idle while it progresses"),
    10: ("One byte a write, UTF-8 split", "Output identical"),
    11: ("A burst of 500, 502, 503, 529", "Breaker opens after 5; one probe; closes"),
    12: ("429 with Retry-After 30", "No call to that key for 30 s"),
    13: ("Retry-After absurd, negative, a date, NaN", "Clamped, no crash"),
    14: ("A 200, then an error event", "Fallback, client unaware"),
    15: ("HTML, half a JSON, a line of 2 GB, a gzip bomb", "502; RSS grows by at most 50 MB"),
    16: ("All upstreams down", "503 within 1 s with Retry-After; upstreams' load at most 1.2 times"),
    17: ("Bad, expired, wrong-name TLS", "502, never plain or unverified"),
    18: ("DNS fails, is slow, changes", "Last good answer for 5 min, then an error; other hosts within 10 ms; loop not blocked"),
    19: ("A client gone mid-stream", "Upstream closed within 1 s; partial bill, once"),
    20: ("A client that never reads", "RSS flat; upstream throttled; cut at the send timeout"),
    21: ("500 slow heads and bodies", "Others' p99 less than twice; 408"),
    22: ("A client leaves and retries with the same idempotency key", "One upstream call, one charge, the whole reply for the second"),
    23: ("100 identical cache misses", "One call; the leader killed, followers succeed"),
    24: ("Redis killed", "Policy; recovers within 5 s without restart"),
    25: ("Redis frozen", "At most 50 ms, once, then the breaker; liveness green"),
    26: ("Redis out of memory, read-only, without scripts, wiped", "No 500; script reloads; spend reseeded once"),
    27: ("Cancelled during a reply of Redis, 1,000 times", "No cross-talk"),
    28: ("3 replicas, a budget of $1, 300 in parallel", "Spend at most $1 and one reservation"),
    29: ("A replica killed while it holds a reservation", "The reservation expires"),
    30: ("SIGTERM with 100 streams; again; SIGKILL", "None cut within the drain, none refused in the lame duck; usage once"),
    31: ("Reload, valid and invalid, under load", "No error; the old one kept when invalid; streams live"),
    32: ("Disk full (journal, audit, SQLite)", "Stated policy; alarm; no partial line"),
    33: ("Read-only root, UID 1000 and 10001", "Starts, and does everything"),
    34: ("Descriptors exhausted", "503, no spin; recovers"),
    35: ("Memory limit and a flood", "Sheds; not killed"),
    36: ("CPU starved", "Sheds; breakers stay closed"),
    37: ("Wall clock off by 10 min; one replica skewed", "No mass expiry; timeouts unaffected"),
    38: ("Database or telemetry sink stalled", "No added latency; bounded queue, drop counter"),
    39: ("kill -9 of a worker, the supervisor, both, under load", "Every reply held in full has exactly one row after the restart"),
    40: ("All of these at once, by dice", "The books agree with what clients hold, to the nano-dollar; nobody waits for ever"),
}

# Rows that no test is about yet, and why.
OPEN: dict[int, str] = {}
