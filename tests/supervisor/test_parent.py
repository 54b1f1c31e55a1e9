"""The supervisor with real processes: stand-ins for worker and operator that serve one fixed answer each."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from e2e.conftest import free_port
from llm_gateway.supervisor import boot
from llm_gateway.supervisor.plan import Address
from processes import alive, eventually


def test_children_serve_and_the_banner_comes_once_when_they_do(supervise):
    gateway = supervise(workers=2)
    assert eventually(gateway.ask).name == "worker"
    assert eventually(lambda: gateway.ask(-1)).name == "operator"
    eventually(lambda: len(gateway.events("ready")) == 1)
    assert gateway.log_path.read_text().count("READY") == 1


def test_a_banner_that_nobody_takes_ends_nothing(supervise):
    """A full disk behind standard output, or a reader that has gone."""
    with Path("/dev/full").open("wb") as full:
        gateway = supervise(stdout=full)
    assert eventually(gateway.ask).name == "worker"
    eventually(lambda: gateway.events("ready"))
    gateway.signal(signal.SIGTERM)
    assert gateway.process.wait(8) == 0


@pytest.mark.row(38)
def test_a_log_whose_reader_stands_still_stops_nobody(supervise):
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb", buffering=0) as sink, Path(f"/proc/self/fd/{writing}").open("wb", buffering=0) as other:
        os.set_blocking(other.fileno(), False)
        while other.write(bytes(1000)):  # the access log, say
            pass
        port = free_port()
        gateway = supervise(stderr=sink, metrics=Address("127.0.0.1", port, None, "server.metrics_port"))
        eventually(lambda: "READY" in gateway.log_path.read_text())
        gateway.address = lambda _: f"127.0.0.1:{port}"  # its log does not say
        eventually(lambda: gateway.ask(-1).links == ["0"])
        gateway.signal(signal.SIGTERM)
        assert gateway.process.wait(8) == 0
    os.close(reading)


def test_there_may_be_weeks_to_drain(supervise):
    """More than the kernel counts in milliseconds."""
    gateway = supervise("SLOW", drain_timeout=1000 * 3600.0)
    eventually(gateway.ask)
    gateway.signal(signal.SIGTERM)
    assert gateway.process.wait(8) == 0


def test_a_killed_worker_is_replaced_at_once_and_its_waiting_connections_are_served(supervise):
    gateway = supervise()
    first = eventually(gateway.ask)
    os.kill(first.pid, signal.SIGSTOP)
    host, _, port = gateway.address(0).rpartition(":")
    with ThreadPoolExecutor(8) as threads:
        waiting = [socket.create_connection((host, int(port)), timeout=5) for _ in range(8)]
        for sock in waiting:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        os.kill(first.pid, signal.SIGKILL)
        answers = list(threads.map(lambda sock: sock.recv(4096), waiting))
    for sock in waiting:
        sock.close()
    assert all(answer.startswith(b"HTTP/1.0 200") for answer in answers)
    assert gateway.ask().pid != first.pid


def test_a_killed_operator_is_replaced_and_linked_anew_with_every_worker(supervise):
    gateway = supervise(workers=2)
    first = eventually(lambda: gateway.ask(-1))
    eventually(lambda: gateway.ask(-1).links == ["0", "1"])
    os.kill(first.pid, signal.SIGKILL)
    second = eventually(lambda: (found := gateway.ask(-1)).pid != first.pid and found)
    assert sorted(second.links) == ["0", "1"]
    worker = eventually(lambda: len((found := gateway.ask()).links) == 2 and found)
    assert worker.pid in gateway.workers().values()
    eventually(lambda: gateway.ask().said[-1] == f"operator {second.pid}")


def test_a_restarted_worker_gets_a_fresh_link_and_the_newest_snapshot(supervise):
    gateway = supervise()
    first = eventually(gateway.ask)
    operator = eventually(lambda: (found := gateway.ask(-1)).links == ["0"] and found)
    boot.publish(gateway.snapshot, b"two")
    os.kill(operator.pid, signal.SIGKILL)
    os.kill(first.pid, signal.SIGKILL)
    second = eventually(lambda: (found := gateway.ask()).pid != first.pid and found)
    assert second.payload == "two"
    eventually(lambda: gateway.ask(-1).said[-1] == f"worker {second.pid}")


@pytest.mark.parametrize("who", ["worker", "operator"])
def test_who_had_no_descriptor_for_its_link_gets_another(supervise, who: str):
    gateway = supervise(f"FULL {who}", workers=2)
    operator = eventually(lambda: len((found := gateway.ask(-1)).links) >= 2 and found, 8)
    worker = eventually(lambda: (found := gateway.ask()).said[-1:] == [f"operator {operator.pid}"] and found, 8)
    others = {f"worker {pid}" for pid in gateway.workers().values()}
    assert f"worker {worker.pid}" in others
    eventually(lambda: others <= set(gateway.ask(-1).said), 8)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process")
@pytest.mark.parametrize("who", ["worker", pytest.param("operator", marks=pytest.mark.slow)])
def test_a_link_that_the_supervisor_has_no_descriptors_for_is_made_when_it_has(supervise, who: str):
    """Whoever is not linked hears of no reload, no key and no credential, however long it lives."""
    gateway = supervise()
    worker = eventually(gateway.ask)
    operator = eventually(lambda: (found := gateway.ask(-1)).links == ["0"] and found)
    whole = _leave_descriptors(gateway.process.pid, 1)  # and the dead one's: enough for a line, not for a link beside it
    os.kill(worker.pid if who == "worker" else operator.pid, signal.SIGKILL)
    eventually(lambda: len(gateway.events("started")) == 3)
    time.sleep(0.5)
    resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, whole)
    now = eventually(lambda: (found := gateway.ask(-1)).links and found, 10)
    eventually(lambda: gateway.ask().said[-1] == f"operator {now.pid}")
    assert gateway.process.poll() is None


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process")
@pytest.mark.slow
def test_who_asks_for_a_link_that_there_are_no_descriptors_for_ends_nobody(supervise):
    gateway = supervise("FULL worker")
    eventually(lambda: gateway.ask(-1).links == ["0"])
    whole = _leave_descriptors(gateway.process.pid, 0)
    eventually(lambda: gateway.events("linked anew"))
    time.sleep(0.5)
    assert gateway.process.poll() is None
    resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, whole)
    eventually(lambda: gateway.ask().said[-1:] == [f"operator {gateway.ask(-1).pid}"])


def _leave_descriptors(pid: int, spare: int) -> tuple[int, int]:
    """Lets a process open so many more. Returns its limits of before."""
    held = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    limit = next(number for number in range(4096) if number - sum(each < number for each in held) == spare)
    whole = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, whole[1]))
    return whole


def test_a_child_that_keeps_dying_is_restarted_ever_slower(supervise):
    gateway = supervise()
    for _ in range(4):
        victim = eventually(lambda: gateway.ask().pid)
        os.kill(victim, signal.SIGKILL)
        eventually(lambda victim=victim: victim not in gateway.workers().values())
    lives = [str(entry["ts"]) for entry in gateway.events("exited")]
    begun = [str(entry["ts"]) for entry in gateway.events("started") if entry["child"] == "worker 0"][1:]
    pauses = [_seconds(later) - _seconds(earlier) for earlier, later in zip(lives, begun, strict=True)]
    assert pauses[0] < 0.1
    assert pauses[3] >= 0.9
    assert pauses == sorted(pauses)


def test_workers_that_never_serve_end_the_gateway_with_an_error(supervise):
    gateway = supervise("DIE")
    assert gateway.process.wait(10) == 1
    assert "died 5 times" in str(gateway.events("killing")[0]["why"])
    assert "READY" not in gateway.log_path.read_text()


def test_sigterm_lets_children_drain_and_exits_0(supervise):
    gateway = supervise("SLOW", workers=2)
    eventually(gateway.ask)
    eventually(lambda: gateway.ask(-1))
    begun = time.monotonic()
    gateway.signal(signal.SIGTERM)
    assert eventually(lambda: gateway.ask(-1).heard == ["DRAIN"])  # the operator is there while workers drain
    assert gateway.process.wait(5) == 0
    assert time.monotonic() - begun > 0.6
    assert gateway.events("stopped")[0]["clean"] is True


def test_sigint_is_quick(supervise):
    gateway = supervise("SLOW")
    eventually(gateway.ask)
    begun = time.monotonic()
    gateway.signal(signal.SIGINT)
    assert gateway.process.wait(5) == 0
    assert time.monotonic() - begun < 1.5


def test_a_second_signal_kills(supervise):
    gateway = supervise("DEAF")
    pid = eventually(gateway.ask).pid
    gateway.signal(signal.SIGTERM)
    eventually(lambda: gateway.events("draining"))
    assert gateway.process.poll() is None
    gateway.signal(signal.SIGINT)
    assert gateway.process.wait(3) == 1
    assert not alive(pid)


def test_the_same_signal_twice_at_once_is_one(supervise):
    gateway = supervise("SLOW")
    eventually(gateway.ask)
    gateway.signal(signal.SIGTERM)
    eventually(lambda: gateway.events("draining"))
    gateway.signal(signal.SIGTERM)
    assert gateway.process.wait(5) == 0
    assert gateway.events("killing") == []


def test_a_child_that_does_not_drain_in_time_is_killed(supervise):
    gateway = supervise("DEAF", drain_timeout=-4.8)  # the grace of 5 s is added to it
    eventually(gateway.ask)
    gateway.signal(signal.SIGTERM)
    assert gateway.process.wait(5) == 1
    assert gateway.events("killing")[0]["why"] == "the time to drain is over"


def test_after_sigterm_nobody_queues_on_a_socket_that_is_not_served(supervise):
    gateway = supervise("SLOW")
    eventually(gateway.ask)
    os.kill(eventually(lambda: gateway.ask(-1).pid), signal.SIGSTOP)  # keeps the supervisor waiting
    gateway.signal(signal.SIGTERM)
    eventually(lambda: [entry for entry in gateway.events("exited") if entry["child"] == "worker 0"])
    try:
        gateway.ask()
    except ConnectionRefusedError:
        return
    raise AssertionError("the port still accepts connections")


def test_sighup_is_told_to_the_operator(supervise):
    gateway = supervise()
    eventually(lambda: gateway.ask(-1))
    gateway.signal(signal.SIGHUP)
    eventually(lambda: gateway.ask(-1).heard == ["RELOAD"])
    assert gateway.ask().heard == []


def test_children_leave_when_the_supervisor_is_killed(supervise):
    gateway = supervise(workers=2)
    eventually(gateway.ask)
    eventually(lambda: gateway.ask(-1))
    children = [int(str(entry["child_pid"])) for entry in gateway.events("started")]
    assert len(children) == 3
    gateway.signal(signal.SIGKILL)
    gateway.process.wait(5)
    eventually(lambda: not any(alive(pid) for pid in children))


def test_ctrl_c_of_a_terminal_reaches_the_supervisor_alone(supervise):
    gateway = supervise()
    pid = eventually(gateway.ask).pid
    assert os.getpgid(pid) != os.getpgid(gateway.process.pid)


def test_a_port_in_use_is_refused_with_the_setting_to_change(supervise):
    first = supervise()
    eventually(first.ask)
    host, _, port = first.address(0).rpartition(":")
    second = supervise(listeners=(Address(host, int(port), None, "server.port"),))
    assert second.process.wait(5) == 1
    text = second.log_path.read_text()
    assert "another process listens there" in text
    assert "server.port" in text


def test_a_unix_socket_is_shared_and_removed_and_a_stale_one_replaced(supervise, tmp_path: Path):
    path = str(tmp_path / "gateway.sock")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    gateway = supervise(workers=2, listeners=(Address(path=path, setting="server.unix_socket"),))
    assert eventually(gateway.ask).name == "worker"
    gateway.signal(signal.SIGTERM)
    assert gateway.process.wait(5) == 0
    assert not Path(path).exists()


def test_who_leaves_last_does_not_take_its_successors_socket_along(supervise, tmp_path: Path):
    """An upgrade: the one before drains for minutes after it stopped to listen, and its successor is there by then."""
    path = str(tmp_path / "gateway.sock")
    listeners = (Address(path=path, setting="server.unix_socket"),)
    before = supervise(listeners=listeners)
    eventually(before.ask)
    leaving = eventually(lambda: before.ask(-1).pid)
    os.kill(leaving, signal.SIGSTOP)  # keeps the supervisor waiting
    before.signal(signal.SIGTERM)
    eventually(lambda: [entry for entry in before.events("exited") if entry["child"] == "worker 0"])
    after = supervise(listeners=listeners)
    eventually(after.ask)
    os.kill(leaving, signal.SIGCONT)
    assert before.process.wait(8) == 0
    assert after.ask().pid in after.workers().values()


def _seconds(stamp: str) -> float:
    hours, minutes, seconds = stamp.partition("T")[2].rstrip("Z").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
