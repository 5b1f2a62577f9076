"""A policy of ten lines in front of Docker: nobody starts privileged containers through this socket.

    gunicorn -b unix:/run/docker-safe.sock -k weavemw.serving.worker.Worker --threads 16 examples.no_privileged:app

    docker -H unix:///run/docker-safe.sock run --privileged busybox true
    Error response from daemon: weave: no privileged containers here.
"""

from weavemw import docker_proxy, errors, on


@on("container_create")
def no_privileged(call):
    if call.body.boolean("HostConfig", "Privileged"):
        raise errors.Forbidden("no privileged containers here")


app = docker_proxy(no_privileged, socket="/var/run/docker.sock")
