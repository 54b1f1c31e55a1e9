"""Rows 33 to 37: a read-only disk and a stranger's user id, no descriptors, no memory, no CPU, a clock that jumps."""

from __future__ import annotations

import http.client
import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from faults.clock import Skew
from faults.conftest import Seen
from faults.groups import limited
from faults.house import KEY, Answer, Gateway, House, kill
from processes import eventually

pytestmark = pytest.mark.slow

# Everything is mounted read-only, in a mount namespace of its own, but the folder $0. An interpreter under a folder that strangers
# may not pass ($1, often root's home) is bound to the same path ($2) below an empty one that they may, by way of $3.
READ_ONLY = """
set -e
data=$0 shut=$1 prefix=$2 aside=$3; shift 3
mount --make-rprivate /
if [ -n "$shut" ]; then
    mount --bind "$prefix" "$aside"
    mount -t tmpfs -o mode=755 tmpfs "$shut"
    mkdir -p "$prefix"
    mount --bind "$aside" "$prefix"
fi
mount --bind "$data" "$data"
for each in $(cut -d' ' -f2 /proc/self/mounts | sort -u); do
    [ "$each" = "$data" ] || mount -o remount,ro,bind "$each" 2>/dev/null || true
done
exec "$@"
"""
PROBE = 'touch /var/tmp/probe-of-a-read-only-root 2>/dev/null && exit 9; exec "$0" "$@"'


def shut(path: Path) -> str:
    """The outermost folder on the way to `path` that a stranger may not pass; empty if there is none."""
    return next((str(each) for each in reversed(path.parents) if not each.stat().st_mode & 0o001), "")


@pytest.mark.row(33)
@pytest.mark.parametrize("uid", [1000, 10001])
def test_it_needs_no_root_and_no_disk_but_its_own(house: House, checkout: Path, seen: Seen, uid: int) -> None:
    """All mounts read-only in a mount namespace (unshare), no capabilities and another user id (setpriv); data_dir alone is writable."""
    if os.geteuid() or shutil.which("setpriv") is None or shutil.which("unshare") is None:
        pytest.skip("needs root, unshare and setpriv")
    if shut(checkout / "any"):
        pytest.skip("strangers may not pass the way to this checkout")
    data, aside, prefix = house.folder / "data", house.folder / "aside", Path(sys.base_prefix).resolve()
    data.mkdir(mode=0o700)
    aside.mkdir()
    os.chown(data, uid, uid)
    for each in (house.folder, *house.folder.parents):  # pytest keeps its folders to itself
        if not each.stat().st_mode & 0o001:
            each.chmod(each.stat().st_mode | 0o011)
    before = [
        "unshare", "--mount", "sh", "-c", READ_ONLY, str(data), shut(prefix / "any"), str(prefix), str(aside),
        "setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs",
        "env", "HOME=/nonexistent", "sh", "-c", PROBE,
    ]  # fmt: skip
    gateway = house.gateway({"up": house.upstream().url}, before=before, data_dir=str(data))
    worker = gateway.worker()
    status = Path(f"/proc/{worker}/status").read_text()
    assert status.partition("Uid:")[2].split()[0] == str(uid)
    assert int(status.partition("CapEff:")[2].split()[0], 16) == 0
    assert gateway.ask("up/ok").status == 200
    assert gateway.ask("up/ok", stream=True).well
    assert gateway.fetch("GET", "/health").status == 200
    assert gateway.metric("llm_gateway_build_info") == 1
    assert len(gateway.rows()) == 2
    seen(f"UID {uid}, no capabilities, everything read-only but data_dir: plain, stream, health, metrics and journal work")


@pytest.mark.row(34)
def test_too_many_connections_for_its_descriptors_are_refused_without_a_spin(house: House, seen: Seen) -> None:
    """The whole gateway may open 200 descriptors (prlimit); 400 connections come and stay."""
    gateway = house.gateway({"up": house.upstream().url}, before=["prlimit", "--nofile=200:200"])
    assert gateway.ask("up/ok").status == 200
    worker, held, told = gateway.worker(), [], Counter[str]()
    before = cpu(worker)
    for _ in range(400):
        sock = gateway.connect(gateway.port)
        sock.settimeout(0.3)
        held.append(sock)
    for sock in held[60:]:
        try:
            data = sock.recv(100)
            told[data[9:12].decode() or "closed"] += 1
        except TimeoutError:
            told["accepted"] += 1
        except ConnectionError:
            told["closed"] += 1
    time.sleep(2)
    spent = cpu(worker) - before
    for sock in held:
        sock.close()
    eventually(lambda: gateway.ask("up/ok").status == 200)
    assert gateway.worker() == worker
    assert gateway.metric("llm_gateway_overload_refused_total") > 300
    seen(f"400 connections at 200 descriptors: of the last 340, {told['503']} told 503, {told['closed']} closed, {told['accepted']} accepted; CPU "
         f"{spent:.2f} s in all; well again when they left, same worker")
    assert told["503"] >= 20
    assert told["accepted"] < 20
    assert spent < 2


@pytest.mark.row(34)
def test_without_a_single_descriptor_what_is_open_goes_on_and_the_rest_is_503(house: House, seen: Seen) -> None:
    """The worker's limit sinks to what it has open (prlimit), under a stream and a kept connection."""
    gateway = house.gateway({"up": house.upstream().url})
    worker = gateway.worker()
    client = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    client.request("GET", "/health/live")
    client.getresponse().read()
    stream = gateway.opened("up/fault-paced:100,0.05")
    got = stream.recv(65536)
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (3, limits[1]))
    before = cpu(worker)
    body = json.dumps({"model": "up/ok", "messages": [{"role": "user", "content": "hi"}]})
    client.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {KEY}"})
    reply = client.getresponse()
    refusal = json.loads(reply.read())
    assert (reply.status, refusal["error"]["code"], reply.headers["retry-after"]) == (503, "no_descriptors", "1")
    while b"[DONE]" not in got:
        got += stream.recv(65536)
    spent = cpu(worker) - before
    resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
    assert gateway.ask("up/ok").status == 200
    assert gateway.worker() == worker
    seen(f"503 `no_descriptors` with Retry-After on a kept connection, the open stream went on to its end, CPU {spent:.2f} s in 5 s; well again at once")
    assert spent < 2


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.row(35)
def test_a_flood_of_bodies_is_shed_and_nobody_is_killed(house: House, seen: Seen) -> None:
    """A memory cgroup of 400 MB; 80 clients send bodies of 8 MB (640 MB in all) towards an upstream that takes its time."""
    with limited(400_000_000) as group:
        upstream = house.upstream()
        gateway = house.gateway({"up": upstream.url}, before=group.before)
        gateway.ask("up/ok")
        worker = gateway.worker()
        answers: list[Answer | str] = []

        def ask(number: int) -> None:
            try:
                answers.append(gateway.ask("up/fault-slow_ok:2" if number % 2 else "up/ok", content="x" * 8_000_000, timeout=60))
            except OSError as error:
                answers.append(type(error).__name__)

        with ThreadPoolExecutor(80) as pool:
            list(pool.map(ask, range(80)))
        statuses = [each if isinstance(each, str) else str(each.status) for each in answers]
        assert set(statuses) == {"200", "503"}, "everybody is answered or refused"
        assert group.killed() == 0
        assert gateway.worker() == worker
        assert gateway.ask("up/ok").status == 200
        eventually(lambda: gateway.metric("llm_gateway_overload_refused_total") > 0)
        told = {each.headers.get("retry-after") for each in answers if isinstance(each, Answer) and each.status == 503}
        assert told == {"1"}
        counts = ", ".join(f"{statuses.count(each)} times {each}" for each in sorted(set(statuses)))
        seen(f"{counts}; peak {group.peak():.0f} of 400 MB, no process killed, the same worker answers afterwards")
        house.close()


@pytest.mark.row(36)
def test_a_starved_worker_sheds_and_blames_no_upstream(house: House, seen: Seen) -> None:
    """The worker runs 10 ms of every 700 (SIGSTOP and SIGCONT) for 15 s, with 40 clients; `max_loop_lag_seconds: 0.3`."""
    gateway = house.gateway(
        {"up": house.upstream().url, "other": house.upstream().url},
        models={"first": {"targets": ["up/ok"], "fallbacks": ["other/ok"]}},
        server={"max_loop_lag_seconds": 0.3},
    )
    gateway.ask("first")
    worker, stop, answers = gateway.worker(), threading.Event(), list[Answer]()

    def keep_asking() -> None:
        while not stop.is_set():
            answers.append(gateway.ask("first", timeout=60))

    health: list[int] = []
    with ThreadPoolExecutor(41) as pool:
        busy = [pool.submit(keep_asking) for _ in range(40)]
        end = time.monotonic() + 15
        while time.monotonic() < end:
            kill(worker, signal.SIGSTOP)
            time.sleep(0.69)
            kill(worker, signal.SIGCONT)
            time.sleep(0.01)
        health.append(gateway.fetch("GET", "/health/live").status)
        stop.set()
        for each in busy:
            each.result()
    assert health == [200]
    statuses = [each.status for each in answers]
    assert set(statuses) == {200, 503}
    assert {each.headers["x-gateway-provider"] for each in answers if each.status == 200} == {"up"}
    eventually(lambda: [gateway.ask("first").status for _ in range(5)] == [200] * 5)
    assert gateway.ask("first").headers["x-gateway-provider"] == "up"
    assert gateway.metric("llm_provider_errors_total") == 0
    eventually(lambda: gateway.metric("llm_gateway_overload_refused_total") > 0)
    seen(f"{statuses.count(200)} answered, {statuses.count(503)} refused with 503; no attempt counted against a provider, none went to the fallback; "
         "well again at once")


@pytest.mark.row(37)
def test_a_wall_clock_that_jumps_moves_no_timeout(house: House, seen: Seen) -> None:
    """The wall clock of one gateway jumps 10 minutes ahead, then 20 back, under streams and requests (libfaketime); another runs true."""
    upstream = house.upstream()
    skew = Skew(house.folder)
    gateway = house.gateway({"up": {"base_url": upstream.url, "timeout_seconds": 2}}, env=skew.env)
    true = house.gateway({"up": upstream.url})
    warm = gateway.ask("up/ok")
    assert warm.status == 200
    stop, answers = threading.Event(), list[Answer]()

    def keep_asking(which: Gateway) -> None:
        while not stop.is_set():
            answers.append(which.ask("up/ok"))

    with ThreadPoolExecutor(20) as pool:
        busy = [pool.submit(keep_asking, which) for which in (gateway, true)]
        long = [pool.submit(gateway.ask, "up/fault-paced:80,0.1", stream=True) for _ in range(5)]
        idle = gateway.connect(gateway.port)
        for seconds in (600, -600, 0):
            time.sleep(1.5)
            skew.set(seconds)
            time.sleep(0.5)
            stalled = gateway.ask("up/fault-stall", timeout=20)
            assert (stalled.status, stalled.code) == (504, "timeout")
            assert 1.8 < stalled.seconds < 6, seconds
        done = [each.result() for each in long]
        stop.set()
        for each in busy:
            each.result()
    assert {each.status for each in answers} == {200}
    assert all(each.well for each in done)
    idle.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
    assert idle.recv(100).startswith(b"HTTP/1.1 200")
    days = {row["ts"][:16] for row in gateway.rows()}
    assert len(days) >= 2, "the clock did not jump at all"
    seen(f"{len(answers)} requests and 5 streams of 8 s across both jumps without an error, an idle connection kept; a limit of 2 s took "
         f"{stalled.seconds:.1f} s at every setting; rows carry the wall clock as it was told")
