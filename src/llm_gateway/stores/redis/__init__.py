"""What workers and replicas count together: an own client for Redis and Valkey, the scripts it calls, and what stands in while it is away.

Law: hiredis and asyncio, never redis-py, which is the operator's. Nothing in here raises at a request: a Redis that fails is a `Failure`, and
what becomes of it is a policy. docs/redis.md says what users see, `scripts.py` what is kept there.
"""
