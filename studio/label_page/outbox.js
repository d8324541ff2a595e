// Labels on their way to the server: written to localStorage before anything else happens, sent in batches, removed only when the
// server says that they are stored. One key per label, so that two tabs never overwrite each other's; a lock (where the browser has one)
// keeps them from sending the same label twice, and its UUID makes a second sending harmless anyway.

import { afterPaint, whenIdle } from "./dom.js";
import { keepalive } from "./net.js";

const BATCH = 50;
const BEACON_BYTES = 60_000; // browsers allow 64 KB for requests that outlive their page
const UNPAINTED_MS = 200;
const TIMEOUT_MS = 20_000;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
const LOCKED_WAIT_MS = 1_000;
const LOCKED_LIMIT = 30; // tries; then the other tab's lock is taken for stuck
const HOPELESS = new Set([400, 404, 413, 415, 422]); // sending the same again cannot help

const OTHER_PERSON = "The server takes you for somebody else now, so these labels wait for their owner.";

// randomUUID exists on https and localhost only; a plain http address in a local network has getRandomValues.
export function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

export class Outbox {
  // `onChange()` after anything changed; `onAnswer(body)` with each answer of the server; `onRefused(entry)` when it will never take one.
  constructor(url, { onChange, onAnswer, onRefused }) {
    this.url = url;
    this.onChange = onChange;
    this.onAnswer = onAnswer;
    this.onRefused = onRefused;
    this.who = "";
    this.space = "";
    this.memory = new Map(); // where localStorage is full or forbidden
    this.busy = null;
    this.single = false; // after a refused batch: one at a time, to find the label that is refused
    this.wait = 0;
    this.timer = 0;
    this.lockedTries = 0;
    this.trouble = null; // {kind: "offline" | "server" | "signin", message, status}
    this.lastStamp = 0;
  }

  open(who, space) {
    const changed = who !== this.who;
    this.who = who;
    this.space = space;
    if (changed) this.onChange();
  }

  get volatile() {
    return this.memory.size > 0;
  }

  get unsent() {
    return this.keys("al-out").length;
  }

  add(event) {
    const entry = { id: uuid(), client_at: new Date().toISOString(), ...event };
    this.lastStamp = Math.max(Date.now(), this.lastStamp + 1);
    const key = `al-out:${this.who}:${String(this.lastStamp).padStart(15, "0")}:${this.space}:${entry.id}`;
    this.put(key, entry);
    this.sendSoon();
    return entry;
  }

  // What was added is safe already, so the next item is painted first. A page that is not on the screen paints nothing.
  sendSoon() {
    const send = () => {
      clearTimeout(unpainted);
      this.onChange(); // before the next key counts, so that "saved" is never said of what is not
      whenIdle(() => this.flush());
    };
    const unpainted = setTimeout(send, UNPAINTED_MS);
    afterPaint(send);
  }

  // Oldest first, of every project of this person.
  entries() {
    return this.keys("al-out").map((key) => ({ key, value: this.read(key) })).filter((entry) => entry.value !== null);
  }

  // The last word on each impression that is not at the server yet.
  standing() {
    const last = new Map();
    for (const { value } of this.entries()) last.set(value.impression, value);
    return last;
  }

  dead() {
    return this.keys("al-dead").map((key) => ({ key, value: this.read(key) })).filter((entry) => entry.value !== null);
  }

  dismissDead() {
    for (const key of this.keys("al-dead")) this.drop(key);
    this.onChange();
  }

  // Send what there is. Resolves when it is stored or when sending has to wait.
  flush() {
    if (!this.who) return Promise.resolve();
    if (!this.busy) {
      clearTimeout(this.timer);
      this.timer = 0;
      this.busy = this.locked().catch((error) => this.fail("offline", String(error))).finally(() => {
        this.busy = null;
        this.onChange();
        if (!this.timer && !this.trouble && this.unsent) this.later(0);
      });
    }
    return this.busy;
  }

  // Now, whatever the backoff: the network is back, the page is seen again, a person asks.
  hurry() {
    this.wait = 0;
    return this.flush();
  }

  async locked() {
    if (!navigator.locks || this.lockedTries > LOCKED_LIMIT) {
      this.lockedTries = 0;
      return this.drain();
    }
    return navigator.locks.request(`al-outbox:${this.who}`, { ifAvailable: true }, async (lock) => {
      if (!lock) {
        this.lockedTries += 1;
        this.later(LOCKED_WAIT_MS);
        return;
      }
      this.lockedTries = 0;
      await this.drain();
    });
  }

  async drain() {
    for (;;) {
      const batch = this.entries().slice(0, this.single ? 1 : BATCH);
      if (!batch.length) {
        this.trouble = null;
        this.single = false;
        return;
      }
      if (!(await this.send(batch))) return;
      this.onChange();
    }
  }

  // True when sending may go on at once.
  async send(batch) {
    let response;
    let body = {};
    try {
      response = await fetch(this.url, {
        method: "POST",
        headers: { "content-type": "application/json" },
        credentials: "same-origin",
        body: JSON.stringify(batch.map(({ value }) => wire(value))),
        signal: AbortSignal.timeout ? AbortSignal.timeout(TIMEOUT_MS) : undefined,
      });
      body = await response.json();
    } catch (error) {
      return this.fail("offline", "");
    }
    if (response.ok && Array.isArray(body.results)) return this.settle(batch, body);
    const message = typeof body.error === "string" ? body.error : "";
    if (response.status === 401 || response.status === 403) return this.fail("signin", message, response.status, LONGEST_WAIT_MS);
    if (!HOPELESS.has(response.status)) return this.fail("server", message);
    if (batch.length > 1) this.single = true;
    else this.bury(batch[0], message || "The server refused this label.");
    return true;
  }

  settle(batch, body) {
    // Somebody else has signed in: what is refused as not theirs is still good for whoever said it.
    if (body.who && body.who !== this.who) return this.fail("signin", OTHER_PERSON, 401, LONGEST_WAIT_MS);
    const byId = new Map(body.results.map((result) => [result.id, result]));
    let known = 0;
    for (const entry of batch) {
      const result = byId.get(entry.value.id);
      if (!result) continue;
      known += 1;
      if (result.accepted) this.drop(entry.key);
      else this.bury(entry, result.reason || "The server refused this label.");
    }
    if (!known) return this.fail("server", "");
    this.wait = 0;
    this.single = false;
    this.trouble = null;
    this.onAnswer(body);
    return true;
  }

  fail(kind, message, status = 0, wait = 0) {
    this.trouble = { kind, message, status };
    this.wait = wait || Math.min(LONGEST_WAIT_MS, Math.max(FIRST_WAIT_MS, this.wait * 2));
    this.later(this.wait * (0.75 + Math.random() / 2));
    return false;
  }

  later(ms) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.flush(), ms);
  }

  bury(entry, reason) {
    this.put(entry.key.replace(/^al-out/, "al-dead"), { ...entry.value, reason });
    this.drop(entry.key);
    this.onRefused(entry.value);
  }

  // The page goes away: hand over what fits, without waiting for the answer. What is not answered stays and is sent again.
  beacon() {
    let size = 2;
    const fitting = [];
    for (const { value } of this.entries()) {
      size += new TextEncoder().encode(JSON.stringify(wire(value))).length + 1;
      if (size > BEACON_BYTES) break;
      fitting.push(wire(value));
    }
    if (fitting.length) keepalive(this.url, fitting);
  }

  // --- storage ---

  keys(kind) {
    const prefix = `${kind}:${this.who}:`;
    const found = [...this.memory.keys()].filter((key) => key.startsWith(prefix));
    try {
      for (let i = 0; i < localStorage.length; i++) {
        const key = localStorage.key(i);
        if (key && key.startsWith(prefix)) found.push(key);
      }
    } catch (error) {
      // Storage is forbidden here: what there is is in memory.
    }
    return this.who ? found.sort() : [];
  }

  read(key) {
    if (this.memory.has(key)) return this.memory.get(key);
    try {
      return JSON.parse(localStorage.getItem(key));
    } catch (error) {
      return null;
    }
  }

  put(key, value) {
    try {
      localStorage.setItem(key, JSON.stringify(value));
    } catch (error) {
      this.memory.set(key, value);
    }
  }

  drop(key) {
    this.memory.delete(key);
    try {
      localStorage.removeItem(key);
    } catch (error) {
      // It was in memory only.
    }
  }
}

// What the server is told (nothing of what is not known: JSON leaves undefined out); the rest of an entry is for this page.
function wire({ id, impression, event, preference, strength, reasons, note, dwell_ms, read_share, reported, client_at }) {
  return { id, impression, event, preference, strength, reasons, note: note || "", dwell_ms, read_share, reported, client_at };
}
