"""Blocks of many hosts, with all that can go wrong: `simulator.py` has more of it (`make simulation`)."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from ipaddress import ip_network
from typing import Any

import pytest
from fakeetcd import FakeEtcd
from simulator import MISTAKES, Duplicate, simulate

from weavemw.cluster.blocks import Block, block_of_key
from weavemw.cluster.keeping import Get, Idle, Keeper, ListOf, Local, Sleep
from weavemw.cluster.kv import Delete, Holds, Outcome, Put, Txn
from weavemw.cluster.lost import StoreUnavailable, Unsure
from weavemw.router.allocator import Allocator
from weavemw.router.book import LocalBook, MemoryBlocks
from weavemw.router.store import MemoryStore

RANGE = (0xFFFF0A200000, 0xFFFF0A200FFF)  # 10.32.0.0/20: 64 blocks
#: Seeds that find each mistake.
FOUND = {"by-lease": 1, "store-first": 1, "all-at-once": 6, "lost-is-done": 1, "not-written-anew": 9}


class Kept:
    """A host, and an etcd that it asks at once; ``spoil`` may raise instead of an answer."""

    def __init__(self, etcd: FakeEtcd, peer: str = "h1") -> None:
        self.etcd, self.now = etcd, 0.0
        self.book = LocalBook(MemoryBlocks(), lambda: self.now)
        self.allocator = Allocator(MemoryStore(), ip_network("10.32.0.0/20"), is_ours=self.book.is_ours)
        self.book.attach(self.allocator)
        self.keeper = Keeper(peer, self.book, (RANGE,), random.Random(peer))
        self.spoil: Callable[[Any, Callable[[], Any]], Any] = lambda what, answer: answer()
        etcd.txn(Txn((), (Put(f"peer/{peer}", "x"),)))
        etcd.watchers.append(self._watch)

    def _watch(self, change: Any) -> None:
        if block := block_of_key(change.key):
            (self.keeper.taken.discard if change.value is None else self.keeper.taken.add)(block)

    def work(self, sleeps: int = 20) -> None:
        """Until there is nothing to do."""
        steps = self.keeper.work()
        answer: Any = None
        error: Exception | None = None
        while True:
            step = steps.throw(error) if error else steps.send(answer)
            answer = error = None
            if isinstance(step, Idle):
                return
            if isinstance(step, Sleep):
                sleeps -= 1
                if not sleeps:
                    return
                continue
            try:
                answer = step.change() if isinstance(step, Local) else self.spoil(step, partial(self._ask, step))
            except StoreUnavailable as raised:
                error = raised

    def _ask(self, step: Any) -> Any:
        match step:
            case Get(key):
                return self.etcd.get(key)
            case ListOf(prefix, value):
                return self.etcd.with_value(prefix, value)
        return self.etcd.txn(step)


@pytest.fixture
def host() -> Kept:
    return Kept(FakeEtcd())


def owned(etcd: FakeEtcd, peer: str = "h1") -> set[Block | None]:
    return {block_of_key(pair.key) for pair in etcd.with_value("block/", peer)}


def test_a_block_is_taken_ahead_of_need(host: Kept) -> None:
    host.work()
    assert len(host.book.blocks()) == 1
    assert owned(host.etcd) == host.book.blocks()
    for number in range(50):
        host.allocator.allocate(f"c{number}")
    host.work()
    assert len(host.book.blocks()) == 2


def test_hosts_have_different_blocks_until_there_are_none() -> None:
    etcd = FakeEtcd()
    hosts = [Kept(etcd, f"h{number}") for number in range(65)]
    for host in hosts:
        host.work()
    assert [len(host.book.blocks()) for host in hosts] == [1] * 64 + [0]
    assert hosts[-1].keeper.full == {RANGE}


def test_a_subnet_of_its_own_is_shared_by_hosts() -> None:
    etcd = FakeEtcd()
    hosts = [Kept(etcd, f"h{number}") for number in range(3)]
    subnet = (RANGE[0] + 0x100, RANGE[0] + 0x1FF)
    for host in hosts:
        host.keeper.want(subnet)
        host.work()
    small = [{block for block in host.book.blocks() if block.length == 126} for host in hosts]
    assert [len(each) for each in small] == [1, 1, 1]
    assert len(set.union(*small)) == 3


@pytest.mark.parametrize("done", [True, False])
def test_a_lost_answer_is_looked_up(host: Kept, done: bool) -> None:
    lost = []

    def spoil(what: Any, answer: Callable[[], Any]) -> Any:
        if isinstance(what, Txn) and not lost:
            lost.append(what)
            if done:
                answer()
            raise Unsure("lost")
        return answer()

    host.spoil = spoil
    host.work()
    assert lost
    assert owned(host.etcd) == host.book.blocks()
    assert len(host.book.blocks()) == 1


def test_an_empty_block_is_given_back_after_a_while_if_two_more_are_kept(host: Kept) -> None:
    for _ in range(4):
        host.keeper.want(RANGE)
        host.work()
    assert len(host.book.blocks()) == 4
    host.now = 601
    host.work()
    assert len(host.book.blocks()) == 2 == len(owned(host.etcd))


def test_what_etcd_has_forgotten_is_put_back_unless_another_took_it(host: Kept) -> None:
    for _ in range(2):
        host.keeper.want(RANGE)
        host.work()
    first, second = sorted(host.book.blocks())
    host.etcd.txn(Txn((), (Delete(first.key), Put(second.key, "h2"))))
    host.keeper.to_reconcile = True
    host.work()
    assert first in owned(host.etcd)
    assert second not in host.book.blocks()
    assert host.keeper.conflicts == {second}


def test_a_host_that_was_removed_takes_nothing(host: Kept) -> None:
    host.work()
    (block,) = host.book.blocks()
    host.etcd.txn(Txn((), (Delete("peer/h1"), Put("removed/h1", ""), Delete(block.key))))
    host.keeper.to_reconcile = True
    host.work()
    assert host.book.blocks() == frozenset()


def test_an_etcd_that_knows_nothing_takes_no_block_from_a_host(host: Kept) -> None:
    host.work()
    blocks = host.book.blocks()
    host.etcd.txn(Txn((), (Delete("peer/h1"), *(Delete(block.key) for block in blocks))))
    host.keeper.to_reconcile = True
    host.work()
    assert host.book.blocks() == blocks
    host.etcd.txn(Txn((), (Put("peer/h1", "x"),)))
    host.work()
    assert owned(host.etcd) == blocks


def test_no_block_is_taken_while_there_is_a_hold(host: Kept) -> None:
    host.etcd.txn(Txn((), (Put("hold", "restored"),)))
    host.work()
    assert host.book.blocks() == frozenset()
    host.etcd.txn(Txn((Holds("hold", "restored"),), (Delete("hold"),)))
    host.work()
    assert len(host.book.blocks()) == 1


def test_a_late_deletion_does_not_fit_what_was_taken_up_again(host: Kept) -> None:
    for _ in range(4):
        host.keeper.want(RANGE)
        host.work()
    late: list[Txn] = []

    def spoil(what: Any, answer: Callable[[], Any]) -> Any:
        if isinstance(what, Txn) and isinstance(what.then[0], Delete) and not late:
            late.append(what)
            raise Unsure("a frozen member has it")
        return answer()

    host.now, host.spoil = 601, spoil
    host.work()
    assert late
    assert host.etcd.txn(late[0]) == Outcome(False, host.etcd.revision)
    assert owned(host.etcd) == host.book.blocks()


def test_many_hosts_and_faults_give_no_address_twice() -> None:
    simulate(1, hosts=12, seconds=30)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(mistake: str) -> None:
    with pytest.raises(Duplicate):
        simulate(FOUND[mistake], hosts=20, seconds=60, mistake=mistake)
