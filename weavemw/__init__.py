"""weavemw: the Weave Docker API proxy as composable WSGI middlewares.

``gunicorn weavemw.app:proxy`` serves the whole stack; every middleware in
:mod:`weavemw.middleware` also works alone around any WSGI app that speaks
Docker's API.
"""

__version__ = "0.1.0"
