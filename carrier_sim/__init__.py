"""A stand-in for Twilio on this machine: REST, TwiML, webhooks, media, callee bots, faults."""

if __name__ != "trunkline.carrier_sim":
    raise ImportError(f"{__name__!r} is a room of trunkline: import it as 'trunkline.carrier_sim'")
