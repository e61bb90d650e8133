"""What needs langwatch-scenario. Beside it stand only the names that drop-in imports look for,
in ``adapter/twilio.py`` and ``adapter/testing.py``.
"""
