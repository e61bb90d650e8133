"""Resampling, mu-law and paced playout for the calls placed on it."""

if __name__ != "trunkline.codec_worker":
    raise ImportError(
        f"{__name__!r} is a room of trunkline: import it as 'trunkline.codec_worker'"
    )
