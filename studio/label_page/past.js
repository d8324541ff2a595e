// What was answered, to take back or to change: on this page without limit, and the last twenty that the server knows of earlier visits.
//
//   entries  {item, preference, strength, reasons, note, reported, measured}, oldest first
//      deeds  what was done here, for undo, newest last

import { get } from "./net.js";

const AGAIN_MS = 30_000; // before the strip asks a second time

export class Past {
  constructor(root, outbox) {
    this.url = `${root}api/label/history`;
    this.outbox = outbox;
    this.forget();
  }

  forget() {
    this.entries = [];
    this.deeds = [];
    this.gone = new Set(); // taken back here: the server may not know it yet
    this.read = false;
    this.triedAt = -AGAIN_MS;
  }

  cast(entry) {
    this.gone.delete(entry.item.id);
    this.entries.push(entry);
    this.deeds.push({ kind: "cast", entry });
  }

  // `after`: {preference, strength, reasons, note, reported, measured}, as of now.
  revise(entry, after) {
    const { preference, strength = "", reasons = [], note = "", reported = false, measured } = entry;
    this.deeds.push({ kind: "revised", entry, before: { preference, strength, reasons, note, reported, measured }, after });
    Object.assign(entry, after);
  }

  // What undo undoes: the last deed of this page, else the newest answer of an earlier visit; null when there is nothing.
  pop() {
    const deed = this.deeds.pop() || (this.entries.length ? { kind: "cast", entry: this.entries[this.entries.length - 1] } : null);
    if (deed?.kind === "cast") this.remove(deed.entry);
    return deed;
  }

  remove(entry) {
    this.entries = this.entries.filter((one) => one !== entry);
    this.deeds = this.deeds.filter((deed) => deed.entry !== entry);
    this.gone.add(entry.item.id);
  }

  // In another tab.
  takenBack(impression) {
    const known = this.find(impression);
    if (known) this.remove(known);
    else this.gone.add(impression);
  }

  find(impression) {
    return this.entries.find((one) => one.item.id === impression);
  }

  // The same when nobody waits for it.
  async loadQuietly() {
    if (this.read || performance.now() - this.triedAt < AGAIN_MS) return;
    this.triedAt = performance.now();
    await this.load();
  }

  // Earlier visits, once; why not, in words, when the server cannot be asked.
  async load() {
    if (this.read) return "";
    await this.outbox.flush();
    if (this.outbox.unsent) return "Undo needs the server here, and it cannot be reached right now.";
    try {
      const body = await get(this.url);
      if (body.space !== this.outbox.space || this.read) return "";
      this.read = true;
      const known = new Set([...this.gone, ...this.entries.map((one) => one.item.id)]);
      this.entries.unshift(...body.labels.reverse().filter((one) => !known.has(one.item.id)));
      return "";
    } catch (error) {
      return error.message;
    }
  }
}
