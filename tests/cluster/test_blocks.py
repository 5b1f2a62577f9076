from __future__ import annotations

import itertools
import random
from ipaddress import IPv6Network, ip_network

import pytest

from weavemw.cluster.blocks import Block, Taken, at, block_length, block_of_key, fixed_part
from weavemw.router.store import Network, key_of


def bounds(text: str) -> tuple[int, int]:
    network: Network = ip_network(text)
    return key_of(network.network_address), key_of(network.broadcast_address)


def block(text: str) -> Block:
    low, high = bounds(text)
    return Block(low, 129 - (high - low + 1).bit_length())


@pytest.mark.parametrize(("subnet", "prefix"), [
    ("10.32.0.0/12", 26), ("10.32.0.0/20", 26), ("10.33.2.0/24", 30), ("10.33.2.0/25", 31), ("10.33.2.0/28", 32),
    ("10.33.2.0/31", 32), ("fd00::/64", 122), ("fd00::/118", 124),
])
def test_how_large_the_blocks_of_a_subnet_are(subnet: str, prefix: int) -> None:
    assert block_length(*bounds(subnet)) - (0 if isinstance(ip_network(subnet), IPv6Network) else 96) == prefix


def test_the_name_of_a_block() -> None:
    some = block("10.32.0.64/26")
    assert some.key == "block/00000000000000000000ffff0a200040/122"
    assert block_of_key(some.key) == some
    assert (some.size, some.high) == (64, bounds("10.32.0.127/32")[0])


@pytest.mark.parametrize("key", ["block/", "block/zz/122", "name/00000000000000000000ffff0a200040/122", "block/40/122",
                                 "block/00000000000000000000ffff0a200040/96",
                                 "block/00000000000000000000ffff0a200041/x"])
def test_what_names_no_block(key: str) -> None:
    assert block_of_key(key) is None


@pytest.mark.parametrize(("other", "free"), [
    ("10.32.0.0/26", False), ("10.32.0.4/30", False), ("10.32.0.63/32", False), ("10.32.0.64/26", True),
    ("10.32.0.64/32", True),
])
def test_blocks_that_lie_in_one_another(other: str, free: bool) -> None:
    assert Taken([block("10.32.0.0/26")]).is_free(block(other)) == free
    taken = Taken([block(other)])
    assert taken.is_free(block("10.32.0.0/26")) == free
    taken.discard(block(other))
    assert taken.is_free(block("10.32.0.0/26"))
    first, end = block("10.32.0.0/26").inside
    assert (first <= block(other).key < end) is not free


def test_the_last_free_block_is_found() -> None:
    low, high = bounds("10.33.0.0/16")
    taken = Taken(Block(low + 64 * number, 122) for number in range(1024) if number != 77)
    assert taken.candidate(low, high, random.Random(1)) == Block(low + 64 * 77, 122)
    taken.add(Block(low + 64 * 77 + 5, 128))
    assert taken.candidate(low, high, random.Random(1)) is None
    assert taken.candidate(*bounds("fd00::/64"), random.Random(1)) is not None
    assert taken.holder_of(low + 64 * 77 + 5) == Block(low + 64 * 77 + 5, 128)
    assert taken.holder_of(low + 64 * 77 + 6) is None
    assert taken.holder_of(low + 70) == at(low + 70, 122)


@pytest.mark.parametrize(("hosts", "parts"), [(1, 4), (4, 4), (5, 8), (16, 16)])
def test_fixed_parts_are_apart_and_fill_the_range(hosts: int, parts: int) -> None:
    low, high = bounds("10.32.0.0/12")
    cut = [fixed_part(low, high, number, hosts) for number in range(parts)]
    assert cut[0][0] == low
    assert cut[-1][1] == high
    assert all(first[1] + 1 == second[0] for first, second in itertools.pairwise(cut))
