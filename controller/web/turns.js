// Who spoke when, by the levels of both sides: to a tenth of a second, and so only a first look.
// The exact figures are those of the ear, from the recording.

const LOUD = 127 - 2 * 42;  // louder than -42 dBFS is speech
const PAUSE = 5;            // a shorter pause does not end it (tenths of a second)
const SHORTEST = 2;

export function runs(levels) {
  const found = [];
  levels.forEach((level, at) => {
    if (level < LOUD) return;
    const last = found[found.length - 1];
    if (last && at - last.end <= PAUSE) last.end = at + 1;
    else found.push({ begin: at, end: at + 1 });
  });
  return found.filter((run) => run.end - run.begin >= SHORTEST);
}

// The answers of the far end: how long after our last word they began. Negative: they broke in.
export function turns(far, ours) {
  const mine = runs(ours);
  return [
    ...mine.map((run) => ({ who: "we", ...run })),
    ...runs(far).map((run) => {
      const before = mine.filter((each) => each.begin < run.begin).pop();
      const fresh = before && !runs(far).some((other) => other.begin > before.begin && other.begin < run.begin);
      return { who: "they", ...run, latency: fresh ? (run.begin - before.end) / 10 : null };
    }),
  ].sort((one, other) => one.begin - other.begin);
}
