// The Label page: the next items are here before they are needed, so a key press paints the next one at once; what was said goes to the
// outbox, which sees to it that it arrives. The server is asked for nothing between a key press and the next pair.
//
//   queue    items to come, oldest first            past       what was answered, newest last, for undo
//   current  the item on the screen                 answered   ids answered here: the server may not know it yet

import { nameOf, listen } from "./keys.js";
import { Outbox, keepalive } from "./outbox.js";
import { Screen } from "./screen.js";
import { build } from "./view.js";

const WANTED = 20; // items ahead
const LOW = 10; // fewer: ask for more
const BUILT_AHEAD = 3;
const LOOK_MS = 120; // nobody has read a pair in less: a bouncing key or a double click
const POLL_MS = 8_000; // while there is nothing to label
const SOON_MS = 400;
const LONGEST_WAIT_MS = 8_000;

const BASE = new URL("./", import.meta.url).href; // .../assets/label/<version>/
const ROOT = new URL("../../../", import.meta.url).href;

// Called each time Gradio renders the component.
export function mount(element) {
  element.alPage?.close();
  element.alPage = new LabelPage(element);
}

class LabelPage {
  constructor(element) {
    this.queue = [];
    this.past = [];
    this.current = null;
    this.answered = new Set();
    this.task = "pairwise";
    this.name = "";
    this.progress = null;
    this.fetching = null;
    this.failures = 0;
    this.exhausted = false; // the last answer held nothing new
    this.historyRead = false;
    this.undoing = false;
    this.armedAt = 0;
    this.hiddenAt = 0;
    this.hiddenMs = 0;
    this.warning = "";
    this.closed = false;
    this.outbox = new Outbox(`${ROOT}api/label`, {
      onChange: () => this.outboxChanged(),
      onAnswer: (body) => this.hear(body),
      onRefused: (entry) => this.answered.delete(entry.impression), // so it may be shown again
    });
    this.screen = new Screen(element, ROOT, {
      act: (action) => this.act(action),
      hurry: () => this.outbox.hurry(),
      dismiss: () => this.outbox.dismissDead(),
    });
    this.screen.waiting();
    this.ends = [
      listen(this.screen.root, () => this.task, () => this.screen.help.open, (action) => this.act(action)),
      on(window, "pagehide", () => this.leave()),
      on(window, "pageshow", (event) => event.persisted && this.comeBack()),
      on(window, "beforeunload", (event) => this.outbox.unsent && event.preventDefault()),
      on(window, "online", () => this.outbox.hurry().then(() => this.refill(true))),
      on(window, "storage", (event) => this.otherTab(event)),
      on(document, "visibilitychange", () => this.visibility()),
    ];
    this.poll = setInterval(() => !this.current && !document.hidden && this.refill(true), POLL_MS);
    this.refill(true);
  }

  close() {
    this.closed = true;
    this.ends.forEach((end) => end());
    clearInterval(this.poll);
  }

  // --- asking for items ---

  refill(now = false) {
    if (this.closed || this.fetching || (!now && (this.exhausted || this.queue.length >= LOW))) return this.fetching;
    this.fetching = this.fetchItems()
      .catch((error) => this.notReached(error))
      .finally(() => (this.fetching = null));
    return this.fetching;
  }

  async fetchItems() {
    const here = this.queue.length + (this.current ? 1 : 0) + this.outbox.unsent;
    const body = await get(`${ROOT}api/label/batch?n=${Math.min(100, WANTED + here)}`);
    this.failures = 0;
    this.greet(body);
    const fresh = this.unknown(body.items);
    this.exhausted = !fresh.length;
    this.queue.push(...fresh);
    this.buildAhead();
    if (this.current) this.drawProgress();
    else this.next(body.state === "empty", body.items.length > 0);
  }

  // Who and which project the server takes this page for.
  greet(body) {
    if (this.outbox.who && this.outbox.who !== body.who) {
      this.warning = "Your browser keeps no cookie for this page, so your labels have no owner: open the page in a tab of its own.";
    }
    if (this.outbox.space && this.outbox.space !== body.space) this.forget(); // another project was opened elsewhere
    this.outbox.open(body.who, body.space);
    this.outbox.flush();
    this.task = body.task;
    this.progress = body.progress;
    const name = JSON.stringify(body.project);
    if (name !== this.name) this.screen.project(body.project);
    this.name = name;
  }

  // Those that are neither here nor answered already.
  unknown(items) {
    const here = new Set([this.current, ...this.queue].filter(Boolean).map((one) => one.item.id));
    const unsent = this.outbox.standing();
    const isOpen = (id) => !here.has(id) && !this.answered.has(id) && (unsent.get(id)?.event ?? "retracted") === "retracted";
    return items.filter((item) => isOpen(item.id)).map((item) => ({ item, built: null, was: "" }));
  }

  notReached(error) {
    this.failures += 1;
    setTimeout(() => this.refill(!this.current), Math.min(LONGEST_WAIT_MS, SOON_MS * 2 ** this.failures));
    if (!this.current) this.screen.note("problem", "The next ones cannot be fetched", error.message);
    this.outboxChanged();
  }

  forget() {
    this.queue = [];
    this.past = [];
    this.current = null;
    this.answered.clear();
    this.historyRead = false;
    this.armedAt = 0;
  }

  // --- showing ---

  // `empty`: the project has no items at all; `known`: the server's answer held items, all of them answered here already.
  next(empty = false, known = false) {
    this.current = this.queue.shift() || null;
    this.armedAt = 0;
    if (this.current) {
      this.show();
      this.refill();
    } else if (empty) {
      this.screen.empty(this.task);
    } else if (known || this.outbox.unsent || !this.exhausted) {
      this.screen.waiting();
      if (known || this.outbox.unsent) setTimeout(() => !this.current && this.refill(true), SOON_MS);
      else this.refill(true);
    } else {
      this.screen.done(this.progress);
    }
    this.drawProgress();
  }

  show() {
    const one = this.current;
    one.built ||= build(one.item, BASE);
    this.armedAt = 0;
    this.hiddenMs = 0;
    this.screen.item(one.built.node, one.item.task, one.was);
    const typesetting = one.built.typesetting;
    if (typesetting) typesetting.then(() => this.arm(one));
    else this.arm(one);
  }

  // Keys and buttons count from the moment both answers are on the screen.
  arm(one) {
    requestAnimationFrame(() => {
      const channel = new MessageChannel();
      channel.port1.onmessage = () => {
        if (this.current !== one) return;
        this.armedAt = performance.now();
        this.screen.armed(one.item.id);
        this.buildAhead();
      };
      channel.port2.postMessage(0);
    });
  }

  buildAhead() {
    for (const one of this.queue.slice(0, BUILT_AHEAD)) one.built ||= build(one.item, BASE);
  }

  // --- deciding ---

  act(action) {
    if (action === "help") this.screen.help.showModal();
    else if (action === "raw") this.screen.toggleRaw();
    else if (action === "undo") this.undo();
    else this.choose(action);
  }

  choose(preference) {
    if (!this.current || !this.armedAt || performance.now() - this.armedAt < LOOK_MS) return;
    const { item } = this.current;
    const dwell = Math.max(0, Math.round(performance.now() - this.armedAt - this.hiddenMs));
    this.answered.add(item.id);
    this.past.push({ item, preference });
    const gain = preference === "skip" ? 0 : 1;
    this.outbox.add({ impression: item.id, event: "cast", preference, dwell_ms: dwell, gain });
    this.screen.say(preference === "skip" ? "Skipped" : nameOf(item.task, preference));
    this.next();
  }

  // Take the last answer back and show its item again; beyond this page's own answers, the server knows the last twenty.
  async undo() {
    if (this.undoing) return;
    this.undoing = true;
    try {
      const problem = this.past.length ? "" : await this.readHistory();
      const last = this.past.pop();
      if (last) this.takeBack(last);
      else this.screen.say(problem || "There is nothing to undo.");
    } finally {
      this.undoing = false;
    }
  }

  takeBack({ item, preference }) {
    this.answered.delete(item.id);
    this.outbox.add({ impression: item.id, event: "retracted", preference: "", gain: preference === "skip" ? 0 : -1 });
    if (this.current) this.queue.unshift(this.current);
    this.queue = this.queue.filter((one) => one.item.id !== item.id);
    this.current = { item, built: null, was: preference };
    this.show();
    this.drawProgress();
    this.screen.say(`Taken back: ${nameOf(item.task, preference)}`);
  }

  // What the server knows of earlier visits, once; why not, in words, when it cannot be asked.
  async readHistory() {
    if (this.historyRead) return "";
    await this.outbox.flush();
    if (this.outbox.unsent) return "Undo needs the server here, and it cannot be reached right now.";
    try {
      const body = await get(`${ROOT}api/label/history`);
      this.historyRead = true;
      if (body.space === this.outbox.space) this.past = body.labels.reverse();
      return "";
    } catch (error) {
      return error.message;
    }
  }

  // --- the server and other tabs ---

  outboxChanged() {
    this.screen?.status(this.outbox, this.warning);
  }

  drawProgress() {
    if (!this.progress) return;
    const gain = this.outbox.entries().reduce((sum, { value }) => sum + (value.gain || 0), 0);
    this.screen.progress(this.progress, gain);
  }

  hear(body) {
    if (body.space !== this.outbox.space) return;
    this.progress = body.progress;
    this.drawProgress();
  }

  // Another tab of this person wrote to the outbox: what was answered there is not to be answered here.
  otherTab(event) {
    if (!event.key || !event.key.startsWith(`al-out:${this.outbox.who}:`)) return;
    this.outboxChanged();
    const said = parse(event.newValue);
    if (!said) return;
    if (said.event === "retracted") {
      this.answered.delete(said.impression);
      return;
    }
    this.answered.add(said.impression);
    this.queue = this.queue.filter((one) => one.item.id !== said.impression);
    if (this.current?.item.id !== said.impression) return;
    this.screen.say("Answered in another tab");
    this.next();
  }

  visibility() {
    if (document.hidden) {
      this.hiddenAt = performance.now();
      this.outbox.flush();
      return;
    }
    this.hiddenMs += performance.now() - this.hiddenAt;
    this.outbox.hurry();
    if (!this.current) this.refill(true);
  }

  leave() {
    this.outbox.beacon();
    const ids = [this.current, ...this.queue].filter(Boolean).map((one) => one.item.id);
    if (ids.length) keepalive(`${ROOT}api/label/release`, JSON.stringify({ ids }));
  }

  // From the browser's back cache: the leases were given up, so what is here may be another's by now.
  comeBack() {
    this.forget();
    this.screen.waiting();
    this.refill(true);
  }
}

function on(target, name, handler) {
  target.addEventListener(name, handler);
  return () => target.removeEventListener(name, handler);
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    return null;
  }
}

async function get(url) {
  let response;
  try {
    response = await fetch(url, { credentials: "same-origin", cache: "no-store" });
  } catch (error) {
    throw new Error("The server cannot be reached. This page tries again by itself.");
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.error || "The server has a problem. This page tries again by itself.");
  return body;
}
