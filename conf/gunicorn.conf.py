"""For those who start gunicorn themselves: ``gunicorn -c conf/gunicorn.conf.py weavemw.app:proxy``.

Settings come from the environment (``WEAVEMW_LISTENERS``, ``DOCKER_HOST``, …; `weave launch-proxy --print-config`
shows their names and values). `weave launch-proxy --foreground` does the same, and takes options.
"""

import os
import sys

from weavemw.errors import WeaveError
from weavemw.serving import program, worker
from weavemw.settings import Settings

try:
    _settings = Settings.from_environ(os.environ)
    bind = program.start(_settings)  # our own sockets: nobody gets into the proxy but who gets into Docker
except WeaveError as error:
    sys.exit(f"weave: {error.advice}")

locals().update(worker.options(_settings))
