"""Everything about interfaces and addresses: what is wanted, what is to be done, and the doing of it.

:mod:`~weavemw.network.addresses` and :mod:`~weavemw.network.plan` think (pure),
:mod:`~weavemw.network.netlink` and :mod:`~weavemw.network.hosts` do.
"""
