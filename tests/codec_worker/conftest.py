"""Hypothesis without deadlines: how long an example takes says nothing on a busy machine."""

from hypothesis import settings

settings.register_profile("codec_worker", deadline=None, print_blob=True)
settings.load_profile("codec_worker")
