"""Menus that a caller goes through by keys: their file, the machine that runs one, and its picture.

``steps.py`` has the data, ``file.py`` reads it from TOML, ``walk.py`` is the machine, and
``picture.py`` draws the menu and the way that a call took.
"""
