// Listening to a call while it runs, and speaking a file into it.

import { ask } from "/live.js";

const RATE = 8000;
const AHEAD = 0.5;  // seconds that are kept before they are heard

const LINEAR = Float32Array.from({ length: 256 }, (_, code) => {
  const bits = ~code & 0xff;
  const magnitude = (((bits & 0x0f) << 3) + 0x84) << ((bits & 0x70) >> 4);
  return (bits & 0x80 ? 0x84 - magnitude : magnitude - 0x84) / 32768;
});

// Plays a call until the returned function is called; `heard` hears how many seconds have come, and
// `ended` why it stopped by itself.
export function listen(call, heard, ended) {
  const stopped = new AbortController();
  const context = new AudioContext();
  let due = 0;
  let seconds = 0;

  function play(mulaw) {
    const moments = mulaw.length / 2;
    const buffer = context.createBuffer(2, moments, RATE);
    for (const channel of [0, 1]) {
      const samples = buffer.getChannelData(channel);
      for (let at = 0; at < moments; at += 1) samples[at] = LINEAR[mulaw[2 * at + channel]];
    }
    if (due < context.currentTime) due = context.currentTime + AHEAD;
    const source = context.createBufferSource();
    source.buffer = buffer;
    source.connect(context.destination);
    source.start(due);
    due += moments / RATE;
    seconds += moments / RATE;
    heard(seconds);
  }

  async function run() {
    const answer = await ask(`/api/calls/${call}/sound`, { signal: stopped.signal });
    const reader = answer.body.getReader();
    let waiting = new Uint8Array();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const joined = new Uint8Array(waiting.length + value.length);
      joined.set(waiting);
      joined.set(value, waiting.length);
      waiting = joined;
      while (waiting.length >= 12) {
        const size = new DataView(waiting.buffer, waiting.byteOffset).getUint32(8, true);
        if (waiting.length < 12 + size) break;
        play(waiting.slice(12, 12 + size));
        waiting = waiting.slice(12 + size);
      }
    }
  }

  run()
    .then(() => ended(""), (error) => { if (!stopped.signal.aborted) ended(error.message); })
    .finally(() => context.close());
  return () => stopped.abort();
}

// Says a sound file, whatever its format, in pieces of half a second.
export async function speak(call, file) {
  const context = new OfflineAudioContext(1, 1, 24000);
  const sound = await context.decodeAudioData(await file.arrayBuffer());
  const line = new OfflineAudioContext(1, Math.ceil(sound.duration * 24000), 24000);
  const source = line.createBufferSource();
  source.buffer = sound;
  source.connect(line.destination);
  source.start();
  const samples = (await line.startRendering()).getChannelData(0);
  for (let at = 0; at < samples.length; at += 12000) {
    const part = samples.subarray(at, at + 12000);
    const pcm = new DataView(new ArrayBuffer(2 * part.length));
    part.forEach((value, n) => pcm.setInt16(2 * n, Math.max(-1, Math.min(1, value)) * 32767, true));
    await ask(`/api/calls/${call}/speak`, { method: "POST", body: pcm.buffer });
  }
  return sound.duration;
}
