"""A real etcd of one member for a whole file of tests, each with a prefix of its own."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import Iterator

import pytest
from etcdmembers import ETCD, Cluster

from weavemw.cluster.store_settings import StoreSettings

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def one_member(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if ETCD is None:
        pytest.skip("needs etcd (apt-get install etcd-server)")
    with Cluster(tmp_path_factory.mktemp("etcd")) as cluster:
        yield cluster


@pytest.fixture
def store(one_member: Cluster) -> StoreSettings:
    return StoreSettings(f"{one_member.url}/n{next(_NUMBERS)}")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Tests here may be coroutines: each has a loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
