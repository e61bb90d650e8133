"""``trunkline calls``, ``show`` and ``play``: calls that live and calls of the past.

``known.py`` has the sources and joins them, ``timeline.py`` a call's moments in order, and
``player.py`` the machine's own player of sound.
"""
