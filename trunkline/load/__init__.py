"""``trunkline load``: an agent's latency and failures, by how many calls it has at a time.

``ramp.py`` places the calls, step by step. ``figures.py`` makes the figures of each step from the
ear's reports, and ``page.py`` draws them. ``command.py`` is the command itself.
"""
