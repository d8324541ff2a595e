// The items to come: asked for before they are needed, kept reserved while the page is seen, given back when it goes.
//
//   queue     items to come, oldest first        answered  ids answered here: the server may not know it yet

import { get, keepalive, post } from "./net.js";
import { build } from "./view.js";

const WANTED = 20; // items ahead
const LOW = 10; // fewer: ask for more
const SHORT = 4; // fewer: ask even if the last answer held nothing new
const BUILT_AHEAD = 3;
const SOON_MS = 400;
const LONGEST_WAIT_MS = 8_000;

export class Feed {
  // `page` has current, aside, greet(body), arrived(body) and notReached(error).
  constructor(root, base, outbox, tabs, page) {
    this.root = root;
    this.base = base;
    this.outbox = outbox;
    this.tabs = tabs;
    this.page = page;
    this.queue = [];
    this.answered = new Set();
    this.fetching = null;
    this.failures = 0;
    this.exhausted = false; // the last answer held nothing new
    this.beat = 0;
    this.closed = false;
  }

  close() {
    this.closed = true;
    clearInterval(this.beat);
  }

  forget() {
    this.queue = [];
    this.answered.clear();
  }

  // What waits for an answer here, as it will be shown.
  get here() {
    return [this.page.current, this.page.aside, ...this.queue].filter((one) => one && !one.changing).map((one) => one.item.id);
  }

  // --- asking for items ---

  refill(now = false) {
    if (this.closed || this.fetching || (!now && (this.exhausted || this.queue.length >= LOW))) return this.fetching;
    this.fetching = this.fetchItems()
      .catch((error) => this.failed(error))
      .finally(() => (this.fetching = null));
    return this.fetching;
  }

  // Labels arrived: where several people share what is left, each may now hold others.
  roomMade() {
    if (this.queue.length < SHORT) this.exhausted = false;
    this.refill();
  }

  async fetchItems() {
    const known = this.here.length + this.outbox.unsent;
    const [body] = await Promise.all([get(`${this.root}api/label/batch?n=${Math.min(100, WANTED + known)}`), this.tabs.census()]);
    this.failures = 0;
    this.page.greet(body);
    this.keepLeases(body.heartbeat_seconds);
    const fresh = this.unknown(body.items);
    this.exhausted = !fresh.length;
    this.queue.push(...fresh);
    this.buildAhead();
    this.page.arrived(body);
  }

  failed(error) {
    this.failures += 1;
    setTimeout(() => this.refill(!this.page.current), Math.min(LONGEST_WAIT_MS, SOON_MS * 2 ** this.failures));
    this.page.notReached(error);
  }

  // Those that are neither here nor answered already.
  unknown(items) {
    const here = new Set(this.here);
    const unsent = this.outbox.standing();
    const isOpen = (id) => !here.has(id) && !this.answered.has(id) && (unsent.get(id)?.event ?? "retracted") === "retracted";
    return items.filter((item) => isOpen(item.id)).map((item) => ({ item, built: null, was: "" }));
  }

  // The next item that no other tab of this person shows; null when there is none.
  take() {
    const taken = this.tabs.taken();
    const at = this.queue.findIndex((one) => !taken.has(one.item.id));
    return at < 0 ? null : this.queue.splice(at, 1)[0];
  }

  drop(ids) {
    this.queue = this.queue.filter((one) => !ids.has(one.item.id));
  }

  putBack(one) {
    this.queue.unshift(one);
  }

  buildAhead() {
    for (const one of this.queue.slice(0, BUILT_AHEAD)) this.build(one);
  }

  build(one) {
    one.built ||= build(one.item, this.base);
    return one.built;
  }

  // --- leases ---

  keepLeases(seconds) {
    if (!seconds || this.beat) return;
    this.beat = setInterval(() => this.heartbeat(), seconds * 1000);
  }

  // These are still wanted. What went to somebody else meanwhile leaves the queue; what is on the screen stays, and its label counts.
  async heartbeat() {
    const ids = this.here;
    if (!this.beat || document.hidden || !ids.length) return;
    try {
      const { lost } = await post(`${this.root}api/label/heartbeat`, { ids });
      const unsent = this.outbox.standing(); // the server does not know yet that these were taken back
      this.drop(new Set(lost.filter((id) => !unsent.has(id))));
      this.roomMade();
    } catch (error) {
      // The next one may get through; a lease that ran out costs nobody a label.
    }
  }

  release() {
    if (this.here.length) keepalive(`${this.root}api/label/release`, { ids: this.here });
  }
}
