from __future__ import annotations

from ipaddress import ip_interface
from typing import Any

import pytest

from weavemw.errors import DockerUnreachable, SettingsError
from weavemw.router.host import HostBridge
from weavemw.serving.exposure import hides_users, lets_in_containers
from weavemw.settings import Settings

BRIDGES = (HostBridge("docker0", (ip_interface("172.17.0.1/16"), ip_interface("fe80::1/64"))),
           HostBridge("weave", (ip_interface("10.2.1.1/24"), ip_interface("169.254.53.1/32"))))


@pytest.mark.parametrize(("allow_from", "found"), [
    pytest.param((), "", id="nobody in particular"),
    pytest.param(("192.0.2.0/24", "fd00::/8", "169.254.0.0/16"), "", id="others"),
    pytest.param(("10.0.0.0/8",), "10.0.0.0/8 has 10.2.1.0/24 (weave), 10.0.0.0/8 has 10.32.0.0/12 (the weave network)",
                 id="around what is exposed"),
    pytest.param(("10.40.0.0/24",), "10.40.0.0/24 has 10.32.0.0/12 (the weave network)", id="within the range"),
    pytest.param(("172.17.0.5",), "172.17.0.5/32 has 172.17.0.0/16 (docker0)", id="one container of Docker's"),
])
def test_what_lets_containers_in_is_said(allow_from: tuple[str, ...], found: str) -> None:
    """A network of the administrator's may be the containers' as well."""
    warning = lets_in_containers(Settings(allow_from=allow_from), lambda: BRIDGES)
    assert found in warning
    assert bool(warning) == bool(found)


def test_with_certificates_addresses_let_nobody_in() -> None:
    """Containers have none."""
    settings = Settings(allow_from=("10.0.0.0/8",), tls_verify=True, tls_cacert="ca", tls_cert="cert", tls_key="key")
    assert not lets_in_containers(settings, lambda: BRIDGES)


class Engine:
    """An engine with these authorization plugins."""

    def __init__(self, *plugins: str, error: Exception | None = None) -> None:
        self.plugins, self.error = plugins, error

    def get(self, path: str) -> Any:
        assert path == "/info"
        if self.error:
            raise self.error
        return {"Plugins": {"Authorization": list(self.plugins) or None}}


@pytest.mark.parametrize("ignored", [False, True])
def test_plugins_that_would_see_no_user_are_said(ignored: bool) -> None:
    """Nobody gets by them unless that is meant."""
    settings = Settings(tls_verify=True, tls_cacert="ca", tls_cert="cert", tls_key="key", ignore_authz=ignored)
    if ignored:
        assert "Docker asks guard, other who may do what" in hides_users(settings, Engine("guard", "other"))
    else:
        with pytest.raises(SettingsError, match="it gets no names") as refused:
            hides_users(settings, Engine("guard"))
        assert "--ignore-authz" in refused.value.hint
    assert not hides_users(settings, Engine())
    assert not hides_users(settings, Engine(error=DockerUnreachable("down")))
