"""Making certificates: certs."""

from __future__ import annotations

from pathlib import Path

import click

from weavemw.cli.command import verb

__all__ = ["certs"]


@verb("certs")
@click.argument("directory", type=click.Path(path_type=Path), default=Path("/etc/weavemw/tls"))
@click.option("--name", "names", multiple=True, metavar="NAME", help="A further name or address of this host.")
@click.option("--client", default="client", metavar="NAME", help="The name in the client's certificate.")
@click.option("--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="How long they are valid.")
@click.option("--member", is_flag=True, help="For members of etcd: the server's certificate is a client's too.")
@click.option("--renew", is_flag=True, help="Replace server's and client's certificate by new ones of the same CA.")
@click.option("--force", is_flag=True, help="Replace everything, the CA too: clients need new certificates.")
def certs(directory: Path, names: tuple[str, ...], client: str, days: int, member: bool, renew: bool,
          force: bool) -> None:
    """Make a CA, and certificates for the proxy and a client, in DIRECTORY (/etc/weavemw/tls).

    \b
    weave certs /tls --name host1.example.com
    weave launch-proxy --tls-verify --tls-cacert=/tls/ca.pem \\
          --tls-cert=/tls/server-cert.pem --tls-key=/tls/server-key.pem
    cp /tls/{ca,cert,key}.pem ~/.docker
    """
    from weavemw.router.host import addresses
    from weavemw.serving import certs as making

    every = (*names, *making.host_names(addresses()))
    if renew:
        written = making.renew(directory, every, days=days, client=client, member=member)
    else:
        written = making.create(directory, every, days=days, client=client, force=force, member=member)
    click.echo("\n".join(map(str, written)))
