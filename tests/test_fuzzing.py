from __future__ import annotations

from collections.abc import Iterator
from random import Random

import fuzzing
import pytest
from attacked import Attacked, attacked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@settings(max_examples=500, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_daemon_is_sent_what_came_or_what_the_model_predicts(rng: Random) -> None:
    """Whatever target and body: byte for byte, or the configuration with its command held back, or nothing."""
    fuzzing.Bodies().case(rng)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with attacked(tmp_path_factory.mktemp("fuzzed"), log_level="info") as one:
        yield one


@pytest.mark.root
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False))
def test_no_head_smuggles_a_create_past(proxy: Attacked, rng: Random) -> None:
    """Whatever is done to a head, a create that reaches the daemon has its command held back."""
    fuzzing.check_heads(proxy, fuzzing.head(rng, fuzzing.body(rng)))
