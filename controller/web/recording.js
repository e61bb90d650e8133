// A call's recording and what the ear says of it, as far as the stack keeps recordings.

import { html, useEffect, useRef, useState } from "/vendor/htm-preact.js";
import * as draw from "/draw.js";
import { ask } from "/live.js";

// Fewer than 20 samples have no median.
const spread = ({ n, p50, max }) => (n === 0 ? "–"
  : `${p50 === null ? "" : `${p50.toFixed(2)} s in the middle, `}${max.toFixed(2)} s at most (${n})`);

async function save(path, name) {
  const url = URL.createObjectURL(await (await ask(path)).blob());
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  URL.revokeObjectURL(url);
}

export function Recording({ sid, over, allowed }) {
  const [kept, setKept] = useState(null);
  const [sound, setSound] = useState(null);
  const [report, setReport] = useState(null);
  const [said, say] = useState("");
  const [at, setAt] = useState(0);
  const canvas = useRef();
  const player = useRef();

  async function load() {
    say("The ear listens …");
    try {
      const bytes = await (await ask(`/api/recordings/${sid}/wav`)).arrayBuffer();
      const url = URL.createObjectURL(new Blob([bytes], { type: "audio/wav" }));
      const buffer = await new OfflineAudioContext(2, 1, 8000).decodeAudioData(bytes);
      setSound({ url, buffer });
      setReport(await (await ask(`/api/recordings/${sid}/report`)).json());
      say("");
    } catch (error) {
      say(error.message);
    }
  }

  useEffect(() => {
    if (!allowed || !sid) return;
    ask(`/api/recordings/${sid}`).then(async (answer) => {
      const found = await answer.json();
      setKept(found);
      if (found.wav && over) load();
    }, (error) => say(error.message));
  }, [allowed, sid]);
  useEffect(() => () => sound && URL.revokeObjectURL(sound.url), [sound]);
  useEffect(() => { if (sound && canvas.current) draw.recording(canvas.current, sound.buffer, report, at); });

  const go = (seconds) => {
    player.current.currentTime = Math.max(0, seconds - 1);
    player.current.play();
  };
  if (!allowed) return null;
  return html`<section aria-label="Recording and report">
    <h2>Recording and report</h2>
    ${kept && !kept.recordings && html`<p class="dim">No recordings are kept. Set <code>TRUNKLINE_RECORDINGS_DIR</code> to hear calls again, and to have their reports.</p>`}
    ${kept && kept.recordings && !kept.wav && html`<p class="dim">There is no recording of this call in <code>TRUNKLINE_RECORDINGS_DIR</code>.</p>`}
    <div class="actions">
      ${kept && kept.wav && html`<button onClick=${load}>${over ? "Listen again" : "What the ear says so far"}</button>
        <button onClick=${() => save(`/api/recordings/${sid}/wav`, kept.wav)}>Save the WAV</button>`}
      ${report && html`<button onClick=${() => save(`/api/recordings/${sid}/report`, `${sid}-report.json`)}>Save the report</button>`}
      ${kept && kept.cassette && html`<button onClick=${() => save(`/api/recordings/${sid}/cassette`, kept.cassette)}>Save the cassette</button>`}
      <span role="status">${said}</span>
    </div>
    ${sound && html`<canvas class="call" ref=${canvas} role="img" aria-label="The whole recording: the far end above, ours below"></canvas>
      <audio controls ref=${player} src=${sound.url} onTimeUpdate=${(event) => setAt(event.target.currentTime)}></audio>`}
    ${report && html`<${Figures} report=${report} go=${go} />`}
  </section>`;
}

function Figures({ report, go }) {
  const figures = [
    ["latency", spread(report.latency)], ["time to yield", spread(report.time_to_yield)],
    ["both spoke", `${report.talk_over_seconds.toFixed(2)} s`],
    ["keys", report.digits.map((digit) => `${digit.digit} (${digit.side})`).join(" ") || "none"],
  ];
  const rows = [
    ...report.answers.map((each) => [each.after, "they", `answered after ${each.latency.toFixed(2)} s`]),
    ...report.yields.map((each) => [each.at, "they", each.seconds === null ? "did not yield" : `yielded in ${each.seconds.toFixed(2)} s`]),
    ...report.false_yields.map((each) => [each.at, "they", "stopped for a backchannel"]),
    ...report.interruptions_by_them.map((each) => [each.at, "they", `interrupted us for ${each.seconds.toFixed(2)} s`]),
    ...report.digits.map((each) => [each.at, each.side === "ours" ? "we" : "they", `pressed ${each.digit}`]),
    ...report.silences.map((each) => [each.start, "", `nobody spoke for ${(each.end - each.start).toFixed(1)} s`]),
  ].sort((one, other) => one[0] - other[0]);
  return html`
    ${report.unreliable_because.map((why) => html`<p class="bad" key=${why}>Unreliable: ${why}.</p>`)}
    <dl class="figures">${figures.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
    <h3>Turns, as the ear heard them</h3>
    <ol class="events" tabindex="0" aria-label="Turns, as the ear heard them">${rows.map(([at, who, text]) => html`<li key=${`${at}${text}`}>
      <button onClick=${() => go(at)}>${at.toFixed(2)} s</button><span class="dim">${who}</span><span class="words">${text}</span>
    </li>`)}</ol>`;
}
