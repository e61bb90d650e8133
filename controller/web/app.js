// The console. All of it is drawn as text nodes: whatever a caller sends stays words.

import { html, render, useEffect, useRef, useState } from "/vendor/htm-preact.js";
import { Recording } from "/recording.js";
import * as draw from "/draw.js";
import { ask, connect, KEPT, mayAct, stack, subscribe, takeToken } from "/live.js";
import { listen, speak } from "/sound.js";
import { turns } from "/turns.js";

const FULL = 127;
const dash = (value) => (value === null || value === undefined || value === "" ? "–" : String(value));
const clock = (at) => new Date(at * 1000).toTimeString().slice(0, 8);
const since = (row) => clock(Date.parse(row.since) / 1000);
const length = (seconds) => {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
};
const many = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;
const decibel = (level) => (level ? `${Math.round((level - FULL) / 2)} dBFS` : "silence");

function useHash() {
  const [hash, set] = useState(location.hash);
  useEffect(() => {
    const changed = () => { set(location.hash); window.scrollTo(0, 0); };
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return hash;
}

// ------------------------------------------------------------------ parts

function Spark({ call, kind, most }) {
  const canvas = useRef();
  const found = stack.levels.get(call) || { far: [], ours: [] };
  useEffect(() => draw.levels(canvas.current, found, most), [found.count]);
  return html`<canvas class=${kind} ref=${canvas} role="img"
    aria-label="How loud both sides were: the far end above, ours below"></canvas>`;
}

function Meter({ side, name, levels }) {
  const level = levels.length ? Math.max(...levels.slice(-3)) : 0;
  return html`<span class="dim">${name}</span>
    <div class="meter ${side}" role="meter" aria-label=${`${name}, level`} aria-valuemin="0" aria-valuemax=${FULL}
      aria-valuenow=${level} aria-valuetext=${decibel(level)}>
      <i style=${{ width: `${Math.max(0, level - 27)}%` }}></i>
    </div>`;
}

function Meters({ call }) {
  const { far = [], ours = [] } = stack.levels.get(call) || {};
  return html`<div class="meters">
    <${Meter} side="far" name="they" levels=${far} /><${Meter} side="ours" name="we" levels=${ours} />
  </div>`;
}

// columns: [key, name, cell?]; a cell that is a function of the row gives what is shown
function Table({ title, rows, columns, empty = "None.", search }) {
  const shown = rows.filter((row) => matches(row, search));
  const count = shown.length === rows.length ? rows.length : `${shown.length} of ${rows.length}`;
  return html`<section>
    <div class="wide" tabindex="0" role="region" aria-label=${title}>
      <table class="cards">
        <caption>${title} <span class="dim">(${count})</span></caption>
        ${shown.length > 0 && html`<thead><tr>${columns.map(([key, name]) => html`<th scope="col" key=${key}>${name}</th>`)}</tr></thead>`}
        <tbody>${shown.map((row) => html`<tr key=${row.id || row.number || row.setting || row.request || row.sid}>
          ${columns.map(([key, name, cell]) => html`<td key=${key} data-name=${name}>${cell ? cell(row) : dash(row[key])}</td>`)}
        </tr>`)}</tbody>
      </table>
      ${shown.length === 0 && html`<p class="dim">${rows.length ? "None matches." : empty}</p>`}
    </div>
  </section>`;
}

const matches = (row, search) =>
  !search || Object.values(row).some((value) => String(value).toLowerCase().includes(search));

const test = (row) => html`<div class="test">${dash(row.test)}</div>`;
const link = (row) => html`<div><a class="to-call" href=${`#/call/${row.id}`}>${row.direction === "inbound"
  ? `${dash(row.caller)} → us` : `us → ${dash(row.callee)}`}</a>${row.test && test(row)}</div>`;
const lost = (row) => html`<span class=${row.frames_lost ? "bad" : ""}>${row.frames_lost}</span>`;
const dry = (row) => html`<span class=${row.underruns ? "bad" : ""}>${row.underruns}</span>`;
const level = (row, key, unit) => {
  const found = stack.levels.get(row.id);
  return found && found[key] !== undefined ? `${found[key]} ${unit}` : "–";
};

const CALLS = [
  ["id", "call", link],
  ["levels", "levels", (row) => html`<${Meters} call=${row.id} />`],
  ["wave", "last 20 s", (row) => html`<${Spark} call=${row.id} kind="spark" most=${200} />`],
  ["state", "state"],
  ["seconds", "time", (row) => length(row.seconds)],
  ["lead", "lead", (row) => level(row, "lead", "ms")],
  ["jitter", "jitter", (row) => level(row, "jitter", "ms")],
  ["frames_lost", "lost", lost],
  ["underruns", "ran dry", dry],
  ["mode", "mode"],
  ["codec_worker", "worker"],
];
const OVER = [
  ["over_at", "over at", (row) => clock(row.over_at)],
  ["id", "call", link],
  ["reason", "reason"],
  ["seconds", "lasted", (row) => length(row.seconds)],
  ["frames_lost", "lost", lost],
  ["underruns", "ran dry", dry],
  ["sid", "CallSid"],
];
const NUMBERS = [
  ["number", "number"], ["state", "state"], ["prior_voice_url", "voice URL before"],
  ["since", "since", since], ["session", "session"],
];
const SESSIONS = [
  ["number", "number"], ["test", "test", test], ["mode", "mode"], ["state", "state"], ["client", "client"],
  ["since", "since", since], ["id", "session"],
];
const PROCESSES = [
  ["role", "process"], ["id", "id"], ["pid", "pid"], ["load", "carries"],
  ["state", "state", (row) => html`<span class=${row.state === "well" ? "good" : "bad"}>${row.state}</span>`],
  ["dropped", "dropped", (row) => dash(Object.entries(row.dropped || {}).map(([why, n]) => `${why} ${n}`).join(", "))],
];
const QUEUE = [
  ["callee", "callee"], ["caller", "from"], ["mode", "mode"], ["waits_for", "waits for"],
  ["place", "place"], ["seconds", "in", (row) => (row.seconds === null ? "–" : `${row.seconds} s`)],
];
const LISTENING = [
  ["sid", "call"], ["test", "test", test], ["theirs", "the agent"], ["state", "state"], ["seconds", "for", (row) => `${row.seconds} s`],
  ["gateway", "gateway"], ["codec_worker", "codec worker"], ["frames_in", "frames in"], ["frames_lost", "lost"],
];
const CAPS = [["setting", "setting"], ["used", "used"], ["most", "most"], ["left", "left", (row) => html`<span class=${row.left ? "" : "bad"}>${row.left}</span>`]];

function processes(state) {
  return [
    { role: "controller", id: state.stack, pid: state.controller.pid, load: `epoch ${state.controller.epoch}`, state: state.stopping ? "stopping" : "well" },
    ...state.gateways.map((row) => ({ role: "gateway", ...row, load: many(row.streams, "stream"), state: "well" })),
    ...state.codec_workers.map((row) => ({ role: "codec worker", ...row, load: many(row.calls, "call"), state: "well" })),
    ...state.unhealthy.map((row) => ({ ...row, role: row.role.replace("_", " "), state: `silent for ${Math.round(row.silent_seconds)} s` })),
  ];
}

function Events({ entries, title, search, linked = true }) {
  const [kind, setKind] = useState("");
  const kinds = [...new Set(entries.map((entry) => entry.kind))].sort();
  const shown = entries.filter((entry) => (!kind || entry.kind === kind) && matches(entry, search));
  return html`<section aria-label=${title}>
    <div class="actions">
      <h2>${title} <span class="dim">(${shown.length})</span></h2><span class="spring"></span>
      <label>Show <select value=${kind} onChange=${(event) => setKind(event.target.value)}>
        <option value="">everything</option>${kinds.map((each) => html`<option key=${each} value=${each}>${each}</option>`)}
      </select></label>
    </div>
    <ol class="events" tabindex="0" aria-label=${title}>
      ${shown.slice(-300).reverse().map((entry) => html`<li key=${entry.n}>
        <time class="dim">${clock(entry.at)}</time><span class="dim">${entry.kind}</span>
        <span class="words">${entry.number ? `${entry.number}: ` : ""}${entry.text}${linked && entry.call
          ? html` <a href=${`#/call/${entry.call}`}>call</a>` : ""}</span>
      </li>`)}
    </ol>
  </section>`;
}

// ------------------------------------------------------------------ pages

function Overview({ search }) {
  const state = stack.state;
  const tiles = [
    ["live calls", state.calls.length], ["sessions", state.sessions.length], ["overrides", state.overrides.length],
    ["gateways", state.gateways.length], ["codec workers", state.codec_workers.length],
    ["waiting", state.queue.length + state.pool.waiting.length],
  ];
  return html`
    <dl class="tiles">${tiles.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
    <${Table} title="Live calls" rows=${state.calls} columns=${CALLS} search=${search} empty="No call lives now." />
    <${Table} title="Calls that are over" rows=${stack.over} columns=${OVER} search=${search} empty="No call has ended since the controller began." />
    <${Table} title="Calls listened to" rows=${state.listening} columns=${LISTENING} search=${search} />
    <${Events} title="What has happened" entries=${stack.entries} search=${search} />
    <${Table} title="Numbers that call us" rows=${state.overrides} columns=${NUMBERS} search=${search} empty="Every number is as it was." />
    <${Table} title="Sessions" rows=${state.sessions} columns=${SESSIONS} search=${search} />
    <div class="pair">
      <${Table} title="Processes" rows=${processes(state)} columns=${PROCESSES} search=${search} />
      <${Table} title="Dials that wait" rows=${state.queue} columns=${QUEUE} search=${search} />
      ${state.pool.numbers + state.pool.waiting.length > 0 && html`<${Table} rows=${state.pool.waiting} search=${search}
        title=${`Waiting for one of the pool's ${state.pool.numbers || ""} numbers`} columns=${[["place", "place"], ["session", "session"]]} />`}
      <${Table} title="Caps" rows=${state.caps} columns=${CAPS} search=${search} empty="No cap is set." />
    </div>`;
}

function Actions({ call, live, allowed }) {
  const [said, say] = useState("");
  const [stop, setStop] = useState(null);
  const [heard, setHeard] = useState(0);
  useEffect(() => () => stop && stop(), [stop]);
  if (!allowed) {
    return html`<p class="dim">To listen and to act, open this page with <code>trunkline console</code>.</p>`;
  }
  const post = (what, done) => ask(`/api/calls/${call}/${what}`, { method: "POST" })
    .then(() => say(done), (error) => say(error.message));
  const toggle = () => {
    if (stop) { stop(); setStop(null); say(""); return; }
    const end = listen(call, setHeard, (why) => { setStop(null); say(why || "The sound has ended."); });
    setHeard(0);
    setStop(() => end);
    say("You hear both sides.");
  };
  const pick = async (event) => {
    const file = event.target.files[0];
    if (!file) return;
    say(`Saying ${file.name} …`);
    try {
      say(`${(await speak(call, file)).toFixed(1)} s of ${file.name} are on their way.`);
    } catch (error) {
      say(error.message);
    }
    event.target.value = "";
  };
  return html`<div class="actions">
    <button disabled=${!live} aria-pressed=${Boolean(stop)} onClick=${toggle}>Listen</button>
    <span class="file"><label for="wav" class=${live ? "" : "dim"}>Speak a sound file</label>
      <input id="wav" type="file" accept="audio/*" disabled=${!live} onChange=${pick} /></span>
    <button disabled=${!live} onClick=${() => post("interrupt", "All queued sound of ours was dropped.")}>Interrupt</button>
    <button class="danger" disabled=${!live} onClick=${() => confirm("Hang this call up?") && post("hang-up", "It is being hung up.")}>Hang up</button>
    <span role="status" data-heard=${Math.floor(heard)}>${said}</span>
  </div>`;
}

function Turns({ call, live }) {
  const found = stack.levels.get(call);
  if (!found) return html`<p class="dim">Nobody has looked while it spoke.</p>`;
  const rows = turns(found.far, found.ours);
  const end = found.far.length;  // now, or when the call ended
  return html`<ol class="events" tabindex="0" aria-label="Turns">${rows.reverse().map((turn) => html`<li key=${turn.begin}>
    <span class="dim">${((end - turn.begin) / 10).toFixed(1)} s ${live ? "ago" : "before its end"}</span><span>${turn.who}</span>
    <span class="words">spoke for ${((turn.end - turn.begin) / 10).toFixed(1)} s${turn.latency === null || turn.latency === undefined ? ""
      : turn.latency >= 0 ? `, ${turn.latency.toFixed(1)} s after our last word` : `, ${(-turn.latency).toFixed(1)} s before our last word`}</span>
  </li>`)}</ol>`;
}

function CallPage({ id, allowed, search }) {
  const live = stack.state.calls.find((call) => call.id === id);
  const call = live || stack.over.find((each) => each.id === id);
  const entries = stack.entries.filter((entry) => entry.call === id);
  if (!call) return html`<section><h2>No such call</h2><p>It is not known here any more. <a href="#/">All calls</a></p>
    ${entries.length > 0 && html`<${Events} title="What has happened in it" entries=${entries} />`}</section>`;
  const figures = [
    ["state", call.state + (call.reason ? ` (${call.reason})` : "")], ["time", length(call.seconds)],
    ["lead", level(call, "lead", "ms")], ["jitter", level(call, "jitter", "ms")],
    ["frames lost", call.frames_lost], ["ran dry", call.underruns],
    ["frames in", call.frames_in], ["frames out", call.frames_out],
    ["mode", call.mode], ["answered by", call.answered_by], ["gateway", call.gateway], ["codec worker", call.codec_worker],
    ["test", call.test], ["session", call.session], ["CallSid", call.sid],
  ];
  return html`
    <section>
      <p><a href="#/">← All calls</a></p>
      <h2>${dash(call.caller)} → ${dash(call.callee)} <span class="dim">${call.direction}</span></h2>
      <${Actions} call=${id} live=${Boolean(live)} allowed=${allowed} key=${id} />
      <div class="actions">${live && html`<${Meters} call=${id} />`}
        <span class="legend dim"><span class="far">the far end, above</span><span class="ours">ours, below</span></span></div>
      <${Spark} call=${id} kind="call" most=${KEPT} />
      <p class="dim">The last minute in which this page looked. Full scale is at the edge.</p>
      <dl class="figures">${figures.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${dash(value)}</dd></div>`)}</dl>
    </section>
    <${Recording} sid=${call.sid} over=${!live} allowed=${allowed} key=${`${id}-${Boolean(live)}`} />
    <div class="pair">
      <section><h2>Turns, by the levels</h2><${Turns} call=${id} live=${Boolean(live)} /></section>
      <${Events} title="What has happened in it" entries=${entries} search=${search} linked=${false} />
    </div>`;
}

function App() {
  const [, again] = useState(0);
  const [allowed, setAllowed] = useState(false);
  const [words, setWords] = useState("");
  const box = useRef();
  const hash = useHash();
  useEffect(() => subscribe(() => again((n) => n + 1)), []);
  const epoch = stack.state && stack.state.controller.epoch;
  useEffect(() => { mayAct().then(setAllowed); }, [epoch]);
  useEffect(() => {
    const key = (event) => {
      if (event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) {
        if (event.key === "Escape" && event.target === box.current) { setWords(""); box.current.blur(); }
        return;
      }
      const links = [...document.querySelectorAll("a.to-call")];
      const at = links.indexOf(document.activeElement);
      if (event.key === "/") { event.preventDefault(); box.current.focus(); }
      else if (event.key === "j") links[Math.min(at + 1, links.length - 1)]?.focus();
      else if (event.key === "k") links[Math.max(at - 1, 0)]?.focus();
      else if (event.key === "Escape" && location.hash.startsWith("#/call/")) location.hash = "#/";
    };
    addEventListener("keydown", key);
    return () => removeEventListener("keydown", key);
  }, []);
  const search = words.trim().toLowerCase();
  const page = /^#\/call\/(\w+)$/.exec(hash);
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>To the page</a>
    <header>
      <h1><a href="#/">trunkline</a></h1>
      <span role="status" class=${stack.connected ? "good" : "bad"}>${stack.connected ? "live" : "the controller does not answer"}</span>
      <span class="dim">${allowed ? "you may act" : "you may look"}</span>
      <span class="spring"></span>
      <label class="search">Search <input type="search" ref=${box} value=${words} aria-keyshortcuts="/"
        placeholder="/ a number, a state, a word" onInput=${(event) => setWords(event.target.value)} /></label>
    </header>
    <main id="main" tabindex="-1">
      ${!stack.state ? html`<p>Waiting for the controller.</p>`
        : page ? html`<${CallPage} id=${page[1]} allowed=${allowed} search=${search} />`
        : html`<${Overview} search=${search} />`}
      <p class="dim">Keys: <kbd>/</kbd> searches, <kbd>j</kbd> and <kbd>k</kbd> go through the calls, <kbd>Esc</kbd> goes back.</p>
    </main>`;
}

takeToken();
connect();
const place = document.getElementById("app");
place.replaceChildren();
render(html`<${App} />`, place);
