"""Fixtures that give test hosts: network namespaces with a Docker Engine of their own (see host.py)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from host import TestHost, sweep, why_not

MakeHost = Callable[..., TestHost]


@pytest.fixture(scope="session")
def _engine_options(pytestconfig: pytest.Config) -> dict[str, Any]:
    """What all hosts of this run have in common; skips where there can be none, clears away what killed runs left."""
    if reason := why_not():
        pytest.skip(reason)
    sweep()
    return {"engine_root": pytestconfig.getoption("engine_root")}


@pytest.fixture(scope="session")
def engine_host(_engine_options: dict[str, Any]) -> Iterator[TestHost]:
    """One host for the whole run: for tests that leave it as they found it."""
    with TestHost(**_engine_options) as host:
        yield host


@pytest.fixture
def make_host(_engine_options: dict[str, Any]) -> Iterator[MakeHost]:
    """A function that makes hosts of the test's own: ``make_host(live_restore=True)``."""
    with contextlib.ExitStack() as hosts:
        yield lambda **options: hosts.enter_context(TestHost(**_engine_options | options))


@pytest.fixture
def fresh_host(make_host: MakeHost) -> TestHost:
    """A host of the test's own."""
    return make_host()


@pytest.fixture(scope="module")
def make_module_host(_engine_options: dict[str, Any]) -> Iterator[MakeHost]:
    """As ``make_host``, for hosts that the tests of a module share."""
    with contextlib.ExitStack() as hosts:
        yield lambda **options: hosts.enter_context(TestHost(**_engine_options | options))
