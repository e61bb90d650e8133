"""The errors that trunkline raises on purpose; all derive from :class:`TrunklineError`."""

from trunkline.bus.errors import *  # noqa: F403  # each of them is public, under this name
from trunkline.bus.errors import __all__ as __all__
