"""The proxy as a program: worker, listeners, TLS, certificates."""
