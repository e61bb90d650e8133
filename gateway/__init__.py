"""Terminates Twilio's webhooks and Media Streams, publishes raw frames."""

if __name__ != "trunkline.gateway":
    raise ImportError(f"{__name__!r} is a room of trunkline: import it as 'trunkline.gateway'")
