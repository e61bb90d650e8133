"""The modules that need langwatch-scenario. Outside of this folder only ``adapter/twilio.py`` and
``adapter/testing.py`` need it, which have the names that drop-in imports look for.
"""
