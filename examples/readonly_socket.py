"""A Docker socket that only answers questions.

    gunicorn -b unix:/run/docker-readonly.sock -k weavemw.serving.worker.Worker examples.readonly_socket:app

Logs and events stream without a thread; ``docker cp`` and ``docker export``, which take files out, are refused.
"""

from weavemw import docker_proxy, policies

app = docker_proxy(policies.read_only, socket="/var/run/docker.sock")
