"""``trunkline doctor``: looks at all that a call needs, and changes nothing.

``run.py`` has the order of the checks, and prints what they find. The checks stand with their
subject: ``machine.py`` (this machine and shell), ``account.py`` (at Twilio), ``stack.py`` (ports,
bus, public URL, a running stack).
"""
