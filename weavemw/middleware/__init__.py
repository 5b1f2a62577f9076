"""The proxy's middlewares: plain WSGI, one class each, usable alone around any app that speaks Docker's API."""
