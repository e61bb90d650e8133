"""``trunkline doctor``: checks all that a call needs, and changes nothing at Twilio.

``run.py`` has the order of the checks, and prints what they find. The checks are in a file for each
subject: ``machine.py`` (this machine and shell), ``account.py`` (at Twilio), ``stack.py`` (ports,
bus, public URL, a running stack).
"""
