"""The contract between the rooms: messages, sockets, endpoints, settings, errors."""

if __name__ != "trunkline.bus":
    raise ImportError(f"{__name__!r} is a room of trunkline: import it as 'trunkline.bus'")
