"""The router: addresses, names, DNS and the bridge of one host, behind a Weave Net router's HTTP API."""
