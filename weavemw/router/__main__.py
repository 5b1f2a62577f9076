"""``python -m weavemw.router``: the router in the foreground, with the options of ``weave launch-router``."""

from __future__ import annotations

import logging
import os
import socket
import sys
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import click

from weavemw.errors import BadRequest, SettingsError, WeaveError
from weavemw.ops import logs, run_dir, troubles
from weavemw.router.allocator import parse_subnet
from weavemw.router.settings import RouterSettings, network_setting

log = logging.getLogger(__name__)


class _Network(click.ParamType[Any]):
    name = "CIDR"

    def __init__(self, kind: type[Any]) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return network_setting(value, self._kind) if isinstance(value, str) else value
        except SettingsError as error:
            self.fail(error.message, param, ctx)


def _clients(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[Any, ...]:
    try:
        return tuple(map(parse_subnet, values))
    except BadRequest as error:
        raise click.BadParameter(error.message) from error


_D = RouterSettings()
_PATH: Any = click.Path(path_type=Path)
_V4, _V6 = _Network(IPv4Network), _Network(IPv6Network)


@click.command()
@click.option("--ipalloc-range", "range", type=_V4, default=_D.range, help="Range that addresses are given from.")
@click.option("--ipalloc-default-subnet", "default_subnet", type=_V4,
              help="Where they come from unless told otherwise.")
@click.option("--ipalloc-range6", "range6", type=_V6, help="Range of IPv6; none unless given.")
@click.option("--no-dns", "dns", flag_value=False, default=True, help="No DNS server.")
@click.option("--dns-domain", default=_D.dns_domain, show_default=True)
@click.option("--dns-ttl", default=_D.dns_ttl, show_default=True, help="Seconds that answers may be kept.")
@click.option("--dns-listen", multiple=True, metavar="ADDRESS", help="Instead of the bridges' addresses; repeatable.")
@click.option("--dns-port", default=_D.dns_port, show_default=True)
@click.option("--dns-client", "dns_clients", multiple=True, callback=_clients, metavar="CIDR",
              help="A further network that is answered; repeatable.")
@click.option("--upstream", multiple=True, metavar="HOST[:PORT]", help="Resolver, instead of the host's; repeatable.")
@click.option("--resolv-conf", type=click.Path(path_type=Path), default=_D.resolv_conf, show_default=True)
@click.option("--http-addr", "http_address", default=_D.http_address, show_default=True, metavar="HOST:PORT")
@click.option("--http-read-only", is_flag=True, help="No changes by TCP: by the unix socket in --run-dir only.")
@click.option("--state-dir", type=click.Path(path_type=Path), default=_D.state_dir, show_default=True)
@click.option("--run-dir", type=click.Path(path_type=Path), default=_D.run_dir, show_default=True,
              help="The proxy's, whose metrics are shown too; the API's unix socket is there.")
@click.option("--docker-host", default=_D.docker_host, show_default=True)
@click.option("--docker-bridge", default=_D.docker_bridge, show_default=True)
@click.option("--bridge", default=_D.bridge, show_default=True, help="Name of the weave bridge; empty for none.")
@click.option("--mtu", default=_D.mtu, show_default=True)
@click.option("--nickname", default=_D.nickname, show_default=True)
@click.option("--store", default="", metavar="URL", help="etcd that hosts share: etcd://HOST:2379[,HOST:2379…][/NETWORK].")
@click.option("--store-ca", type=_PATH, metavar="FILE", help="Authority of the store's certificate; with it, TLS.")
@click.option("--store-cert", type=_PATH, metavar="FILE", help="This host's certificate for the store.")
@click.option("--store-key", type=_PATH, metavar="FILE", help="Its key.")
@click.option("--store-user", default="", metavar="USER", help="User of the store.")
@click.option("--store-password-file", type=_PATH, metavar="FILE", help="File with the user's password.")
@click.option("--advertise-address", "advertise", multiple=True, metavar="ADDRESS",
              help="Where other hosts reach this one, if not at its own address; repeatable.")
@click.option("--vxlan-port", default=_D.vxlan_port, show_default=True, help="UDP port between hosts.")
@click.option("--vxlan-id", default=_D.vxlan_id, show_default=True, help="VXLAN network identifier between hosts.")
@click.option("--encrypt", is_flag=True, help="WireGuard between hosts, UDP port --vxlan-port + 1; on all or on none.")
@click.option("--force", is_flag=True, help="Accept a range that overlaps a route of this host.")
@click.option("--log-level", default=_D.log_level, show_default=True)
def main(**options: Any) -> None:
    """Run the weave router in the foreground: addresses, names, DNS and the bridge of this host."""
    from weavemw.router.main import run  # not for `weave --help`, which shows these options: it takes its time

    try:
        settings = RouterSettings(**options)
        logs.configure(settings.log_level)
        run_dir.prepare(settings.run_dir, settings.docker_socket)
        troubles.record(settings.run_dir, "router")
        run(settings, ready=lambda address: _notify(os.environ.get("NOTIFY_SOCKET", "")))
    except WeaveError as error:
        click.echo(f"weave router: {error.advice}", err=True)
        sys.exit(1)


def _notify(path: str) -> None:
    """Tell systemd that the router serves, if it wants to know (sd_notify(3)); ``@`` stands for an abstract socket."""
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            try:
                sock.sendto(b"READY=1", path.replace("@", "\0", 1) if path.startswith("@") else path)
            except OSError as error:
                log.warning("can't tell systemd by %s: %s", path, error.strerror)


if __name__ == "__main__":
    main(prog_name="weave-router")
