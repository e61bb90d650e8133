"""The modules that need langwatch-scenario. Beside them stand only the names that drop-in imports
look for, in ``adapter/twilio.py`` and ``adapter/testing.py``.
"""
