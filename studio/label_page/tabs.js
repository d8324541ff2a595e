// Which item each tab of this browser has on its screen, so that one person's two tabs never show the same one. A tab says it in
// localStorage and holds a lock as long as it lives; what a tab without a lock said is void (without locks: what is old).

import { parse } from "./storage.js";
import { uuid } from "./outbox.js";

const STALE_MS = 150_000; // longer than a lease: a hidden tab's timers run once a minute
const PREFIX = "al-on:";

export class Tabs {
  constructor() {
    this.id = uuid();
    this.key = PREFIX + this.id;
    this.living = null; // ids of living tabs, null = unknown
    this.held = new Promise((release) => (this.release = release));
    navigator.locks?.request(this.key, () => this.held).catch(() => {}); // forbidden in some frames
  }

  show(impression) {
    this.write(JSON.stringify({ impression, at: Date.now() }));
  }

  nothing() {
    this.write("");
  }

  close() {
    this.nothing();
    this.release();
  }

  // What other tabs show.
  taken() {
    const found = new Set();
    for (const [key, said] of this.others()) {
      const dead = this.living ? !this.living.has(key) : Date.now() - said.at > STALE_MS;
      if (!dead) found.add(said.impression);
    }
    return found;
  }

  // Learn which tabs live; those that are gone show nothing.
  async census() {
    if (!navigator.locks) return;
    const { held } = await navigator.locks.query().catch(() => ({ held: null }));
    if (!held) return;
    this.living = new Set(held.map((lock) => lock.name).filter((name) => name.startsWith(PREFIX)));
    for (const [key] of this.others()) if (!this.living.has(key)) this.write("", key);
  }

  // A tab that opened since the last census lives.
  heard(key) {
    if (!key?.startsWith(PREFIX)) return false;
    this.living?.add(key);
    return true;
  }

  *others() {
    try {
      for (const key of Object.keys(localStorage)) {
        if (!key.startsWith(PREFIX) || key === this.key) continue;
        const said = parse(localStorage.getItem(key));
        if (said) yield [key, said];
      }
    } catch (error) {
      // Storage is forbidden here, and so no tab knows of another.
    }
  }

  write(text, key = this.key) {
    try {
      if (text) localStorage.setItem(key, text);
      else localStorage.removeItem(key);
    } catch (error) {
      // As above.
    }
  }
}
