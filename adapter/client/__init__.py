"""A client of the stack: its connection, its sessions, its calls and their sound.

One thread speaks to the bus (:mod:`.client`); users' loops reach it through :mod:`.thread_bridge`.
"""
