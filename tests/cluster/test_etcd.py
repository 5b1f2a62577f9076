from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from etcdmembers import ETCD, Cluster, Member, free_ports

from weavemw.cluster.etcd import EtcdClient, _status
from weavemw.cluster.kv import Absent, Change, Delete, Holds, Present, Put, Txn, Unchanged, after_prefix
from weavemw.cluster.lost import Compacted, HistoryLost, StoreRefused, StoreUnavailable, Unsure
from weavemw.cluster.store_settings import StoreSettings

pytestmark = pytest.mark.skipif(ETCD is None, reason="needs etcd (apt-get install etcd-server)")


@pytest.mark.parametrize(("status", "text", "code", "words"), [
    (503, '{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader"}}', 14, "no leader"),
    (503, '{"error":"etcdserver: no leader","code":14,"message":"etcdserver: no leader"}', 14, "no leader"),
    (400, '{"error":"x","code":3}', 3, "x"),
    (404, "404 page not found", 0, "it has no JSON gateway: start it with enable-grpc-gateway: true"),
    (502, "<html>", 14, "answered 502, and is perhaps no etcd"),
    (200, "[]", 0, "answered 200, and is perhaps no etcd"),
])
def test_what_a_refusal_says(status: int, text: str, code: int, words: str) -> None:
    error = _status(status, text)
    assert (error.code, error.text) == (code, words)


async def put(client: EtcdClient, key: str, value: str, lease: int = 0) -> int:
    return (await client.txn(Txn((), (Put(key, value, lease),)), repeatable=True)).revision


async def test_transactions(store: StoreSettings) -> None:
    p = store.prefix
    async with EtcdClient(store) as client:
        first = Txn((Absent(p, after_prefix(p)),), (Put(p + "a", "1"), Put(p + "b", "ü")))
        assert (await client.txn(first)).succeeded
        assert not (await client.txn(first)).succeeded
        pair = await client.get(p + "b")
        assert pair
        assert pair.value == "ü"
        assert not (await client.txn(Txn((Holds(p + "a", "2"),), (Delete(p + "a"),)))).succeeded
        assert not (await client.txn(Txn((Unchanged(p + "a", pair.revision - 1),), (Delete(p + "a"),)))).succeeded
        right = Txn((Holds(p + "a", "1"), Unchanged(p + "a", pair.revision), Present(p + "b")), (Delete(p + "a"),))
        assert (await client.txn(right)).succeeded
        assert await client.get(p + "a") is None


async def test_a_list_comes_page_by_page_at_one_revision(store: StoreSettings) -> None:
    async with EtcdClient(store) as client:
        for start in range(0, 250, 125):
            keys = [Put(f"{store.prefix}{number:03}", str(number)) for number in range(start, start + 125)]
            revision = (await client.txn(Txn((), tuple(keys)))).revision
        listing = await client.list(store.prefix, page=100)
        assert [pair.value for pair in listing.pairs] == [str(number) for number in range(250)]
        assert listing.revision == revision
        assert listing.cluster == client.cluster != ""


async def test_a_lease_ends_with_what_was_kept_by_it(store: StoreSettings) -> None:
    async with EtcdClient(store) as client:
        lease = await client.grant(60)
        await put(client, store.prefix + "up", "1", lease)
        assert await client.keep_alive(lease)
        await client.revoke(lease)
        assert await client.get(store.prefix + "up") is None
        assert not await client.keep_alive(lease)


@asynccontextmanager
async def watching(client: EtcdClient, prefix: str, revision: int) -> AsyncIterator[list[Change]]:
    seen: list[Change] = []

    async def watch() -> None:
        async for changes in client.watch(prefix, revision):
            seen.extend(changes.changes)

    task = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(seen: list[Change], count: int, limit: float = 20) -> None:
    async with asyncio.timeout(limit):
        while len(seen) < count:
            await asyncio.sleep(0.02)


async def test_a_watch_sees_what_came_before_it_and_after(store: StoreSettings) -> None:
    async with EtcdClient(store, silence=0.1) as client:
        first = await put(client, store.prefix + "a", "1")
        await put(client, store.prefix[:-1], "of another network")
        async with watching(client, store.prefix, first) as seen:
            await until(seen, 1)
            await client.txn(Txn((), (Put(store.prefix + "b", "2"), Delete(store.prefix + "a"))))
            await until(seen, 3)
        assert [(each.key[-1], each.value) for each in seen] == [("a", "1"), ("b", "2"), ("a", None)]


async def test_a_watch_of_history_that_is_gone_says_so(one_member: Cluster, store: StoreSettings) -> None:
    async with EtcdClient(store) as client:
        first = await put(client, store.prefix + "a", "1")
        last = await put(client, store.prefix + "a", "2")
        await client._call("/v3/kv/compaction", {"revision": str(last)})
        with pytest.raises(Compacted):
            await anext(client.watch(store.prefix, first))


async def test_a_watch_from_the_future_means_that_history_was_lost(store: StoreSettings) -> None:
    async with EtcdClient(store) as client:
        now = await put(client, store.prefix + "a", "1")
        with pytest.raises(HistoryLost):
            await anext(client.watch(store.prefix, now + 100))


async def test_nobody_there(store: StoreSettings) -> None:
    port = free_ports(1)[0]
    async with EtcdClient(replace(store, url=f"etcd://127.0.0.1:{port}")) as client:
        with pytest.raises(StoreUnavailable, match="etcd does not answer: ") as raised:
            await client.get("a")
        assert not isinstance(raised.value, Unsure)
        assert client.trouble is not None
        assert client.trouble.reason.startswith(f"127.0.0.1:{port}: ")


async def test_what_is_perhaps_done_is_not_asked_again(store: StoreSettings) -> None:
    """A member that takes the request and says nothing."""
    asked = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"\r\n\r\n")
        asked += 1
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        async with EtcdClient(replace(store, url=f"etcd://127.0.0.1:{port}"), timeout=0.2) as client:
            with pytest.raises(Unsure, match="no answer in time"):
                await client.txn(Txn((), (Put("a", "1"),)))
            assert asked == 1
        await asyncio.sleep(0.1)  # for the end of silent()


async def test_a_password_and_a_token_that_dies(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    cluster = Cluster(tmp_path, flags=["--auth-token-ttl", "1"])
    try:
        cluster.start()
        cluster.wait()
        _etcdctl(cluster, "user add root:secret", "role add w", "role grant-permission w readwrite /weavemw/weave/ "
                 "--prefix", "user add host:secret", "user grant-role host w", "user grant-role root root",
                 "auth enable")
        settings = StoreSettings(cluster.url, user="host", password_file=tmp_path / "password")
        async with EtcdClient(settings, silence=0.2) as client:
            first = await put(client, settings.prefix + "a", "1")
            async with watching(client, settings.prefix, first) as seen:
                await until(seen, 1)
                client._members[0].token = "dead.1"
                await asyncio.gather(*(put(client, f"{settings.prefix}{number}", "2") for number in range(5)))
                await until(seen, 6)
            with pytest.raises(StoreRefused, match="permission denied"):
                await client.get("/elsewhere")
        (tmp_path / "password").write_text("wrong")
        async with EtcdClient(settings) as client:
            with pytest.raises(StoreRefused, match="authentication failed, invalid user ID or password"):
                await client.get(settings.prefix + "a")
    finally:
        cluster.stop()


def _etcdctl(cluster: Cluster, *commands: str) -> None:
    for command in commands:
        subprocess.run(["etcdctl", "--endpoints", cluster.members[0].at, *command.split()], check=True,
                       capture_output=True, env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"})


async def test_tls_with_certificates_of_both_sides(tmp_path: Path) -> None:
    _make_certificates(tmp_path)
    flags = ["--cert-file", str(tmp_path / "etcd.pem"), "--key-file", str(tmp_path / "etcd.key"),
             "--trusted-ca-file", str(tmp_path / "ca.pem"), "--client-cert-auth"]
    cluster = Cluster(tmp_path, flags=flags, scheme="https")
    try:
        cluster.start()
        settings = StoreSettings(cluster.url, ca=tmp_path / "ca.pem", cert=tmp_path / "host.pem",
                                 key=tmp_path / "host.key")
        async with EtcdClient(settings) as client:
            for _ in range(50):
                with suppress(StoreUnavailable):
                    assert await put(client, settings.prefix + "a", "1") > 0
                    break
                await asyncio.sleep(0.2)
            assert client.trouble is None
        async with EtcdClient(replace(settings, ca=tmp_path / "host.pem", cert=None, key=None)) as client:
            with pytest.raises(StoreUnavailable, match="certificate verify failed"):
                await client.get(settings.prefix + "a")
    finally:
        cluster.stop()


def _make_certificates(directory: Path) -> None:
    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=directory)

    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key",
            "-out", "ca.pem", "-subj", "/CN=authority", "-days", "2", "-addext",
            "keyUsage=critical,keyCertSign,cRLSign")
    (directory / "ext").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n"
                                   "keyUsage=digitalSignature\nauthorityKeyIdentifier=keyid\n")
    for name in ("etcd", "host"):
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key",
                "-out", f"{name}.csr", "-subj", f"/O={name}")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-extfile", "ext", "-out", f"{name}.pem")


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, 3)
    try:
        cluster.start()
        cluster.wait()
        yield cluster
    finally:
        cluster.stop()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
@pytest.mark.parametrize("leads", [True, False], ids=["leader", "follower"])
async def test_nothing_is_missed_nor_seen_twice_while_a_member_fails(three: Cluster, number: int, leads: bool) -> None:
    leader = three.leader()
    victim = leader if leads else next(each for each in three.members if each is not leader)
    settings = StoreSettings("etcd://" + ",".join([victim.at, *(each.at for each in three.members if each != victim)]))
    async with EtcdClient(settings) as client:
        start = await put(client, settings.prefix + "start", "")
        async with watching(client, settings.prefix + "w/", start) as seen:
            done = await _write(client, settings.prefix + "w/", victim, number)
            await until(seen, len(done))
            await asyncio.sleep(0.3)
        values = [json.loads(str(each.value)) for each in seen]
        assert len(values) == len(set(values))
        assert done <= set(values)


async def _write(client: EtcdClient, prefix: str, victim: Member, number: int) -> set[int]:
    """Write for a while, and let a member fail meanwhile; what was acknowledged."""
    done: set[int] = set()
    for step in range(80):
        if step == 20:
            victim.send(number)
        with suppress(Unsure):
            if (await client.txn(Txn((Absent(f"{prefix}{step}"),), (Put(f"{prefix}{step}", str(step)),)))).succeeded:
                done.add(step)
        await asyncio.sleep(0.02)
    assert len(done) > 60
    return done
