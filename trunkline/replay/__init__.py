"""``trunkline record`` and ``trunkline replay``: cassettes are made, played again, and compared.

``cassette.py`` reads a cassette. ``command.py`` chooses whom to play it to: ``stream.py`` plays one
stream at a WebSocket, ``call.py`` a whole call at a webhook, and ``stack.py`` a call against a
stack of its own, for which ``twilio.py`` is the REST and ``ourselves.py`` our side. ``mirror.py``
turns a call round, for an agent that was its far end. ``compare.py`` finds the differences.
``record.py`` is the other command.
"""
