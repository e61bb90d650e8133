// What the stack pushes, and how loud calls were while this page looked.

// Levels are bytes of 100 ms: 0 is silence, each step half a decibel, 127 full scale.
export const KEPT = 600;

export const stack = {
  state: null,        // the whole stack, once a second
  over: [],           // calls that are over, the newest first
  entries: [],        // what has happened, the oldest first
  levels: new Map(),  // by call: { far, ours: numbers, lead, jitter }
  connected: false,
};

const ENTRIES = 2000;
const OVER = 500;
const listeners = new Set();

export function subscribe(changed) {
  listeners.add(changed);
  return () => listeners.delete(changed);
}

const told = () => listeners.forEach((changed) => changed());

function bytes(hex) {
  const found = [];
  for (let at = 0; at < hex.length; at += 2) found.push(parseInt(hex.slice(at, at + 2), 16));
  return found;
}

function keep(kept, more, most) {
  kept.push(...more);
  if (kept.length > most) kept.splice(0, kept.length - most);
}

const takes = {
  state(state) {
    stack.state = state;
    const live = new Set(state.calls.map((call) => call.id));
    const over = new Set(stack.over.map((call) => call.id));
    for (const id of stack.levels.keys()) if (!live.has(id) && !over.has(id)) stack.levels.delete(id);
  },
  over(rows) {
    const known = new Set(stack.over.map((call) => call.id));
    for (const row of rows) if (!known.has(row.id)) stack.over.unshift(row);
    for (const gone of stack.over.splice(OVER)) stack.levels.delete(gone.id);
  },
  entries(rows) {
    const last = stack.entries.length ? stack.entries[stack.entries.length - 1].n : 0;
    keep(stack.entries, rows.filter((row) => row.n > last), ENTRIES);
  },
  levels(rows) {
    for (const [id, [lead, jitter, far, ours]] of Object.entries(rows)) {
      let found = stack.levels.get(id);
      if (!found) stack.levels.set(id, (found = { far: [], ours: [], count: 0 }));
      Object.assign(found, { lead, jitter });
      const heard = bytes(far);
      keep(found.far, heard, KEPT);
      keep(found.ours, bytes(ours), KEPT);
      found.count += heard.length;
    }
  },
};

export function connect() {
  const source = new EventSource("/api/live");
  for (const [name, take] of Object.entries(takes)) {
    source.addEventListener(name, (event) => {
      take(JSON.parse(event.data));
      stack.connected = true;
      told();
    });
  }
  source.onerror = () => {
    stack.connected = false;
    told();
  };
}

// The browser keeps the token of `trunkline console` for as long as this tab is open, and nowhere else.
const KEY = "trunkline-token";

export function takeToken() {
  const given = /^#token=([\w-]+)$/.exec(location.hash);
  if (given) {
    sessionStorage.setItem(KEY, given[1]);
    history.replaceState(null, "", "/#/");
  }
}

export async function ask(path, options = {}) {
  const token = sessionStorage.getItem(KEY) || "";
  const answer = await fetch(path, { ...options, headers: { authorization: `Bearer ${token}` } });
  if (!answer.ok) throw new Error((await answer.text()) || answer.statusText);
  return answer;
}

export async function mayAct() {
  if (!sessionStorage.getItem(KEY)) return false;
  try {
    await ask("/api/allowed");
    return true;
  } catch {
    return false;
  }
}
