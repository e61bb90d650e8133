"""Who owns which number and which call; Twilio REST; puts every number back."""

if __name__ != "trunkline.controller":
    raise ImportError(f"{__name__!r} is a room of trunkline: import it as 'trunkline.controller'")
