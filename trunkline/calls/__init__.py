"""``trunkline calls``, ``show`` and ``play``: calls that live and calls of the past.

``known.py`` reads the sources that know of calls, and joins them. ``told.py`` is one of them, the
running stack's memory. ``timeline.py`` puts a call's moments in order, and ``player.py`` plays a
recording by a program of the machine.
"""
