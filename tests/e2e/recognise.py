"""A program: the words of raw PCM16 mono 16 kHz files, as a JSON list on standard output.

Every file is decoded from the same state, so that the words depend on nothing but the file. One
pass of the decoder over at most 3,000 states a frame takes half of the time that its defaults take,
and gets fewer words wrong: 21 of the 70 through an ideal line, where the defaults get 25 wrong.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from pocketsphinx import Decoder


def main(paths: list[str]) -> None:
    os.nice(10)  # calls are under way
    decoder = Decoder(samprate=16_000, loglevel="FATAL", fwdflat=False, maxhmmpf=3000)
    fresh = decoder.get_cmn(False)
    words = []
    for path in paths:
        decoder.set_cmn(fresh)
        decoder.start_utt()
        decoder.process_raw(Path(path).read_bytes(), full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        words.append("" if found is None else found.hypstr)
    print(json.dumps(words))


if __name__ == "__main__":
    main(sys.argv[1:])
