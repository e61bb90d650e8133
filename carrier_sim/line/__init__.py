"""The line between a far end and the carrier: how good or bad it is.

``profiles.py`` has the lines by name, ``noise.py`` the noise under the words, ``codec.py`` the
codecs, and ``line.py`` is the machine that a call's sound goes through.
"""
