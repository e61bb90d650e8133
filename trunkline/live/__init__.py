"""``trunkline doctor --live``: real calls that check what trunkline believes of Twilio.

``command.py`` asks, and prints. ``run.py`` has the course of a run, ``probes.py`` the calls that
try the beliefs, ``trial.py`` one call, ``listener.py`` our public side, ``number.py`` the number
that is called, and ``verdicts.py`` the beliefs and what a run found.
"""
