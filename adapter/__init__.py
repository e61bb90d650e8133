"""The client: Line, Call and the scenario adapter on top of them."""

if __name__ != "trunkline.adapter":
    raise ImportError(f"{__name__!r} is a room of trunkline: import it as 'trunkline.adapter'")
