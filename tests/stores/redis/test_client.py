"""Every way a Redis may stand there: alone with TLS, users and databases, on a socket, behind sentinels, as a cluster."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from pathlib import Path

import pytest
import redis
import trustme
from msgspec.structs import replace

from llm_gateway.core.tenancy import Claim
from llm_gateway.stores.redis.dial import master, ping
from llm_gateway.stores.redis.resp import Command, pack
from llm_gateway.stores.redis.scripts import keys
from llm_gateway.stores.redis.slots import slot
from llm_gateway.stores.redis.terms import Login, Tls, parse
from redis_server import redis_server, say, sentinel, valkey, valkey_cluster
from stores.redis.conftest import ask, budget, port_of, store, until

REQUESTS = Claim("key:1", "requests", 1000)
PAGE = (Path(__file__).parents[3] / "docs" / "redis.md").read_text()


def acl() -> list[str]:
    """What the documents say that the gateway's own user may do."""
    said = PAGE.partition("redis-cli ACL SETUSER gateway on '>PASSWORD' ")[2].partition("\n```")[0]
    return said.replace("\\\n", " ").replace("\\", "").replace("'", "").split()



async def works(one, tenant: str = "acme") -> None:
    account = one.bind(REQUESTS, Claim("key:1", "tokens", 6000), Claim("key:1", "day", 9), Claim("key:1", "concurrent", 5), budget(), tenant=tenant)
    first = ask("a", tokens=10, cost=100)
    assert (await account.reserve(first)).refused is None
    assert (await account.extend(ask("a", cost=5))).refused is None
    account.settle(first, 20, 7)
    await until(lambda: not one.shared.client.waiting)
    assert (await account.reserve(ask("b"))).left[4] == budget().limit - 7
    assert one.shared.meter.failures == {}


async def test_valkey(tmp_path):
    binary = valkey()
    if binary is None:
        pytest.skip("no valkey-server here")
    import redis_server as servers

    port = servers.refused_port()
    with servers._process(tmp_path, [binary, "--port", str(port), "--save", ""], port):
        async with store(f"valkey://127.0.0.1:{port}", patient=True) as one:
            await works(one)


async def test_a_user_that_may_do_what_the_documents_say(own):
    url, _ = own
    say(port_of(url), "ACL", "SETUSER", "gateway", "on", ">hunter2", *acl())
    async with store(url.replace("//", "//gateway:hunter2@"), patient=True) as one:
        await works(one)
    assert await ping(parse(url.replace("//", "//gateway:hunter2@")))
    assert not await ping(parse(url.replace("//", "//gateway:wrong@")))


async def test_who_is_not_let_in_does_without_until_it_is(own):
    url, _ = own
    say(port_of(url), "CONFIG", "SET", "requirepass", "right")
    async with store(url.replace("//", "//:wrong@"), wait=False, patient=True) as one:
        assert (await one.bind(REQUESTS).reserve(ask("a"))).refused is None
        await until(lambda: one.turns)
        assert one.turns[0].reason == "auth"
        with redis.Redis(port=port_of(url), password="right") as client:
            client.config_set("requirepass", "wrong")
        await one.ready()
        await works_again(one)


async def works_again(one) -> None:
    assert (await one.bind(REQUESTS).reserve(ask("again"))).refused is None


async def test_a_database_of_its_own(fresh):
    async with store(fresh.replace("/0", "/7"), patient=True) as one:
        await works(one)
    with redis.Redis.from_url(fresh) as client:
        assert client.dbsize() == 0
        assert client.info("keyspace")["db7"]["keys"] > 5
        client.flushall()


async def test_a_unix_socket(tmp_path):
    path = tmp_path / "redis.sock"
    with redis_server(tmp_path, None, "--unixsocket", str(path)):
        async with store(f"unix://{path}?db=1", patient=True) as one:
            await works(one)
        assert await ping(parse(f"unix://{path}"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    for name, issued in (("server", ca.issue_cert("redis.test", "127.0.0.1")), ("client", ca.issue_cert("client.test"))):
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    return folder


def tls_options(folder: Path, port: int) -> list[str]:
    return [
        "--tls-port", str(port), "--tls-cert-file", str(folder / "server.pem"), "--tls-key-file", str(folder / "server.key"),
        "--tls-ca-cert-file", str(folder / "ca.pem"),
    ]  # fmt: skip


async def test_tls_both_ways(tmp_path, authority):
    from replay.faulty import refused_port

    secure = refused_port()
    with redis_server(tmp_path, None, *tls_options(authority, secure)):
        plain = parse(f"rediss://127.0.0.1:{secure}")
        both = Tls(ca=str(authority / "ca.pem"), cert=str(authority / "client.pem"), key=str(authority / "client.key"))
        async with store(replace(plain, tls=both), patient=True) as one:
            await works(one)
        assert await ping(replace(plain, tls=both))
        for wrong in (Tls(), Tls(ca=both.ca), replace(both, server_name="other.test")):
            async with store(replace(plain, tls=wrong), wait=False) as one:
                await until(lambda told=one: told.turns, 10)
                assert one.turns[0].reason in ("away", "lost"), wrong
                assert not await ping(replace(plain, tls=wrong))
        async with store(replace(plain, tls=replace(both, server_name="redis.test")), patient=True) as one:
            await works(one, "another")


def test_a_ca_that_is_missing_is_found_missing():
    from llm_gateway.stores.redis.dial import context

    with pytest.raises(OSError, match="No such file"):
        context(Tls(ca="/nowhere/ca.pem"))
    assert context(Tls(verify=False)).verify_mode is ssl.CERT_NONE


# -- sentinels -----------------------------------------------------------------------------------------------------------


async def test_a_sentinels_master_and_its_successor(tmp_path):
    with redis_server(tmp_path) as (first, process), redis_server(tmp_path) as (second, _):
        say(port_of(second), "REPLICAOF", "127.0.0.1", port_of(first))
        with sentinel(tmp_path, "main", port_of(first)) as watcher:
            terms = parse(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{watcher}/main")
            async with store(terms, patient=True) as one:
                await works(one)
                assert await ping(terms)
                assert (await master(terms))[1] == port_of(first)
                await until(lambda: len(say(watcher, "SENTINEL", "REPLICAS", "main")) == 1, 15)
                process.kill()
                account = one.bind(REQUESTS)
                await until(lambda: not one.shared.ready)
                assert (await account.reserve(ask("meanwhile"))).refused is None
                await one.ready(20)
                assert (await master(terms))[1] == port_of(second)
                assert (await account.reserve(ask("c"))).left[0] < REQUESTS.limit


async def test_sentinels_with_a_password(tmp_path):
    with redis_server(tmp_path, None, "--requirepass", "data") as (url, _), sentinel(
        tmp_path, "main", port_of(url), "requirepass watch", "sentinel auth-pass main data"
    ) as watcher:
        terms = parse(f"redis+sentinel://:data@127.0.0.1:{watcher}/main")
        assert not await ping(terms)
        terms = replace(terms, sentinel=Login("", "watch"))
        assert await ping(terms)
        async with store(terms, patient=True) as one:
            await works(one)


async def test_no_sentinel_knows(tmp_path, own):
    with sentinel(tmp_path, "main", port_of(own[0])) as watcher:
        assert not await ping(parse(f"redis+sentinel://127.0.0.1:{watcher}/other"))
        async with store(f"redis+sentinel://127.0.0.1:{watcher}/other", wait=False) as one:
            await until(lambda: one.turns)
            assert one.turns[0].node == "other"


# -- clusters ------------------------------------------------------------------------------------------------------------


def tenants_on(ports: list[int]) -> dict[int, str]:
    """A tenant for each node."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < len(ports):
        name = f"tenant-{number}"
        owner = slot(keys(name, REQUESTS)[0]) * len(ports) // 16384
        found.setdefault(ports[min(owner, len(ports) - 1)], name)
        number += 1
    return found


@pytest.mark.parametrize("form", ["redis", "redis+cluster"])
async def test_scripts_go_where_their_tenant_is_and_never_cross(cluster, form):
    ports, _ = cluster
    async with store(f"{form}://127.0.0.1:{ports[0]}", patient=True) as one:
        claims = (REQUESTS, Claim("key:1", "tokens", 60_000), Claim("key:1", "concurrent", 100), budget(), budget(period="day", hard=False))
        accounts = [one.bind(*claims, tenant=f"tenant-{form}-{number}") for number in range(60)]
        # A first one that belongs to another node: it finds out that there are more. A slow machine takes its time to open links to them.
        assert (await one.bind(REQUESTS, tenant=tenants_on(ports)[ports[1]]).reserve(ask("first"))).refused is None
        await until(lambda: one.shared.client.cluster and one.shared.ready)
        one.shared.meter.failures.clear()
        for index in range(2):
            verdicts = await asyncio.gather(*(account.reserve(ask(f"{index}", tokens=5, cost=10)) for account in accounts))
            assert {verdict.refused for verdict in verdicts} == {None}
            for account in accounts:
                account.settle(ask(f"{index}", tokens=5, cost=10), 7, 10)
        await one.ready()
        assert one.shared.client.cluster
        assert one.shared.meter.failures == {}
        assert {turn.node for turn in one.turns} == {f"127.0.0.1:{port}" for port in ports}
    assert all(say(port, "DBSIZE") > 50 for port in ports)


@pytest.mark.parametrize("form", ["redis+cluster", "redis"])
@pytest.mark.parametrize("place", range(3))
async def test_whichever_node_of_a_cluster_is_named_it_is_there_at_once(cluster, place, form):
    """One that is asked for a key of another node's says so before a map is there."""
    ports, _ = cluster
    async with store(f"{form}://127.0.0.1:{ports[place]}", wait=False) as one:
        await until(lambda: one.shared.ready, 2)  # less than a connection may take to open
        assert {turn.reason for turn in one.turns} == {""}
        assert one.shared.meter.failures.keys() <= {"moved"}


async def test_what_waits_for_its_slot_is_not_sent_for_somebody_who_left(fresh):
    """His settlement has overtaken it, and would not be sent again."""
    async with store(fresh, patient=True) as one:
        client = one.shared.client
        for name, left in (("left", True), ("stays", False)):
            waits = asyncio.get_running_loop().create_future()
            if left:
                waits.cancel()
            client._send_to(client._one, Command(pack("INCR", name), waits))
        assert await waits == 1
        assert (say(port_of(fresh), "GET", "left"), say(port_of(fresh), "GET", "stays")) == (None, b"1")


async def test_a_slot_that_moves(cluster):
    """Counted by what neither time nor a slow machine gives back: a bucket's requests are there again while keys move."""
    ports, _ = cluster
    tenant = tenants_on(ports)[ports[0]]
    claims = (budget(1000, "total", hard=False), Claim("key:1", "day", 9))
    number = slot(keys(tenant, claims[0])[0])
    ids = {port: say(port, "CLUSTER", "MYID") for port in ports}
    async with store(f"redis+cluster://127.0.0.1:{ports[1]}", patient=True) as one:
        account = one.bind(*claims, tenant=tenant)
        failures = one.shared.meter.failures
        assert (await account.reserve(ask("a", cost=1))).left[0] == 999
        say(ports[2], "CLUSTER", "SETSLOT", number, "IMPORTING", ids[ports[0]])
        say(ports[0], "CLUSTER", "SETSLOT", number, "MIGRATING", ids[ports[2]])
        moved = say(ports[0], "CLUSTER", "GETKEYSINSLOT", number, 1)
        say(ports[0], "MIGRATE", "127.0.0.1", ports[2], moved[0], 0, 1000)
        begun = asyncio.ensure_future(account.reserve(ask("b", cost=1)))  # half here, half there: TRYAGAIN, or ASK
        await asyncio.sleep(0.015)
        rest = say(ports[0], "CLUSTER", "GETKEYSINSLOT", number, 100)
        say(ports[0], "MIGRATE", "127.0.0.1", ports[2], "", 0, 1000, "KEYS", *rest)
        assert (await begun).refused is None
        assert failures.keys() <= {"tryagain"}
        alone = failures.get("tryagain", 0)  # 1 where moving took longer than is waited for: granted without Redis
        assert (await account.reserve(ask("c", cost=1))).left[0] == 997 + alone, "ASK"
        for port in (ports[2], ports[0], ports[1]):
            say(port, "CLUSTER", "SETSLOT", number, "NODE", ids[ports[2]])
        assert (await account.reserve(ask("d", cost=1))).left[0] == 996 + alone, "MOVED"
        assert failures.get("tryagain", 0) == alone
        await one.ready()


@pytest.mark.slow
async def test_a_node_that_is_gone_takes_its_tenants_only(tmp_path):
    with valkey_cluster(tmp_path, patience=1000) as (ports, processes):
        names = tenants_on(ports)
        async with store(f"redis+cluster://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}") as one:
            accounts = {port: one.bind(REQUESTS, tenant=names[port]) for port in ports}
            for port in ports:
                assert (await accounts[port].reserve(ask("a"))).left == (999,)
            os.kill(processes[2].pid, signal.SIGSTOP)
            for index in range(3):
                for port in ports:
                    assert (await accounts[port].reserve(ask(f"b{index}"))).refused is None
            assert one.shared.meter.local == {"granted": 3}
            assert not one.shared.ready
            os.kill(processes[2].pid, signal.SIGCONT)
            await one.ready(10)
            assert (await accounts[ports[2]].reserve(ask("c"))).refused is None
            processes[2].kill()
            await until(lambda: not one.shared.ready)
            assert (await accounts[ports[0]].reserve(ask("d"))).left[0] <= 999


@pytest.mark.slow
async def test_a_replica_takes_over(tmp_path):
    """Its old master is dead for good: the others know who it is now."""
    with valkey_cluster(tmp_path, patience=1000) as (ports, processes), valkey_cluster_node(tmp_path, ports) as (port, _):
        name = tenants_on(ports)[ports[0]]
        await until(lambda: say(port, "CLUSTER", "INFO") and b"cluster_known_nodes:4" in say(port, "CLUSTER", "INFO"), 10)
        await until(lambda: _replicates(port, ports[0]), 10)
        async with store(f"redis+cluster://127.0.0.1:{ports[1]}", patient=True) as one:
            account = one.bind(REQUESTS, tenant=name)
            assert (await account.reserve(ask("a"))).left == (999,)
            await until(lambda: b"master_link_status:up" in say(port, "INFO", "replication"), 10)
            await asyncio.sleep(0.5)
            processes[0].kill()
            await until(lambda: not one.shared.ready)
            await one.ready(20)
            assert (await account.reserve(ask("b"))).left[0] <= 999
            assert f"127.0.0.1:{port}" in {turn.node for turn in one.turns}


def _replicates(port: int, of: int) -> bool:
    try:
        return say(port, "CLUSTER", "REPLICATE", say(of, "CLUSTER", "MYID")) in (b"OK", "OK")
    except redis.RedisError:
        return False


def valkey_cluster_node(folder: Path, ports: list[int]):
    """One more node, that knows the others."""
    from contextlib import contextmanager

    import redis_server as servers

    @contextmanager
    def node():
        port, bus = servers.refused_port(), servers.refused_port()
        line = [str(valkey()), "--port", str(port), "--cluster-enabled", "yes", "--cluster-config-file", f"nodes-{port}.conf", "--save", ""]
        with servers._process(folder, [*line, "--cluster-port", str(bus), "--cluster-node-timeout", "1000"], port) as process:
            say(port, "CLUSTER", "MEET", "127.0.0.1", ports[0], servers.ahead_port(ports[0]))
            yield port, process

    return node()
