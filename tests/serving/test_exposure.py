from __future__ import annotations

from ipaddress import ip_interface

import pytest

from weavemw.router.host import HostBridge
from weavemw.serving.exposure import lets_in_containers
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
