// The Label page: the next items are here before they are needed, so a key press paints the next one at once; what was said goes to the
// outbox, which sees to it that it arrives. The server is asked for nothing between a key press and the next pair.
//
//   current  the item on the screen: {item, built, was, note, reported?, measured?, changing?}
//   aside    the one that waits while an earlier answer is looked at again (again.js)

import { Again } from "./again.js";
import { Company } from "./company.js";
import { afterPaint, whenIdle } from "./dom.js";
import { Feed } from "./feed.js";
import { Keymap, listen, nameOf } from "./keys.js";
import { Outbox } from "./outbox.js";
import { Past } from "./past.js";
import { Screen } from "./screen.js";
import { SHOWN } from "./strip.js";
import { Tabs } from "./tabs.js";

const LOOK_MS = 120; // nobody has read a pair in less: a bouncing key or a double click
const POLL_MS = 8_000; // while there is nothing to label
const SOON_MS = 400;
const TOGGLES = new Set(["raw", "diff", "together", "history"]);

const BASE = new URL("./", import.meta.url).href; // .../assets/label/<version>/
const ROOT = new URL("../../../", import.meta.url).href;

// Called each time Gradio renders the component.
export function mount(element) {
  element.alPage?.close();
  element.alPage = new LabelPage(element);
}

class LabelPage {
  constructor(element) {
    this.current = null;
    this.aside = null;
    this.task = "pairwise";
    this.options = {};
    this.described = "";
    this.progress = null;
    this.armedAt = 0;
    this.askedAt = 0; // when the second step came up
    this.hiddenMs = 0;
    this.warning = "";
    this.keymap = new Keymap();
    this.tabs = new Tabs();
    this.outbox = new Outbox(`${ROOT}api/label`, {
      onChange: () => this.outboxChanged(),
      onAnswer: (body) => this.hear(body),
      onRefused: (entry) => entry.event === "cast" && this.feed.answered.delete(entry.impression), // so it may be shown again
    });
    this.past = new Past(ROOT, this.outbox);
    this.again = new Again(this);
    this.feed = new Feed(ROOT, BASE, this.outbox, this.tabs, this);
    this.screen = new Screen(element, ROOT, this.keymap, {
      act: (action) => this.act(action),
      jump: (entry) => this.again.jump(entry),
      stay: () => this.again.leave(),
      hurry: () => this.outbox.hurry(),
      dismiss: () => this.outbox.dismissDead(),
      remapped: () => this.screen.drawKeys(this.task),
    });
    this.screen.notices.waiting();
    const keys = (key) => this.meaning(key);
    this.deaf = listen(this.screen.root, keys, () => this.screen.busy, (what) => this.pressed(what));
    this.company = new Company(this);
    this.poll = setInterval(() => !this.current && !document.hidden && this.feed.refill(true), POLL_MS);
    this.feed.refill(true);
  }

  close() {
    this.deaf();
    this.company.close();
    clearInterval(this.poll);
    this.feed.close();
    this.tabs.close();
    this.screen.close();
  }

  // --- what the server says ---

  // Who and which project the server takes this page for.
  greet(body) {
    if (this.outbox.who && this.outbox.who !== body.who) {
      this.warning =
        "The server takes you for somebody else now. What was answered before and is not saved yet stays in this browser for its owner. " +
        "If nobody else has signed in, your browser keeps no cookie here: open the page in a tab of its own.";
    }
    if (this.outbox.space && this.outbox.space !== body.space) this.forget(); // another project was opened elsewhere, or another person
    this.outbox.open(body.who, body.space);
    this.outbox.flush();
    this.task = body.task;
    this.progress = body.progress;
    this.options = body.options || {};
    const described = JSON.stringify([body.project, this.options]);
    if (described !== this.described) this.screen.project(body.project, this.options);
    this.described = described;
  }

  arrived(body) {
    if (this.current) this.drawProgress();
    else this.next(body.state === "empty", body.items.length > 0);
  }

  notReached(error) {
    if (!this.current) this.screen.notices.notReached(error);
    this.outboxChanged();
  }

  hear(body) {
    if (body.space !== this.outbox.space) return;
    this.progress = body.progress;
    this.drawProgress();
    this.feed.roomMade();
  }

  forget() {
    this.feed.forget();
    this.past.forget();
    this.current = this.aside = null;
    this.armedAt = 0;
    this.screen.revisit(null);
    this.screen.strip.draw([], null);
  }

  // --- showing ---

  // `empty`: the project has no items at all; `known`: the server's answer held items, all of them answered here already.
  next(empty = false, known = false) {
    this.current = this.feed.take();
    this.armedAt = 0;
    if (this.current) {
      this.show();
      this.feed.refill();
    } else {
      this.tabs.nothing();
      this.nothing(empty, known);
      this.drawHistory();
    }
    this.drawProgress();
  }

  nothing(empty, known) {
    const { notices } = this.screen;
    if (empty) return notices.empty(this.task);
    if (this.feed.queue.length) return notices.elsewhere();
    if (!known && !this.outbox.unsent && this.feed.exhausted) return notices.done(this.progress);
    notices.waiting();
    if (known || this.outbox.unsent) setTimeout(() => !this.current && this.feed.refill(true), SOON_MS);
    else this.feed.refill(true);
  }

  show() {
    const one = this.current;
    const { node, typesetting, near } = this.feed.build(one);
    this.armedAt = 0;
    this.hiddenMs = 0;
    this.tabs.show(one.item.id);
    this.screen.item(node, one.item.task, near, one.was);
    this.screen.note.show(one.note || "");
    this.screen.set("report", Boolean(one.reported));
    if (one.places) this.screen.restore(one.places);
    if (typesetting) typesetting.then(() => this.arm(one));
    else this.arm(one);
  }

  // Keys and buttons count from the moment both answers are on the screen.
  arm(one) {
    afterPaint(() => {
      if (this.current !== one) return;
      this.armedAt = performance.now();
      this.hiddenMs = 0; // of a page in the background nothing is painted: it was not looked at yet
      this.screen.armed(one.item.id);
      whenIdle(() => {
        this.feed.buildAhead();
        this.drawHistory();
      });
    });
  }

  async drawHistory() {
    if (!this.screen.is("history")) return;
    const draw = () => this.screen.strip.draw(this.past.entries, this.current?.changing || null);
    draw();
    if (this.past.entries.length < SHOWN) await this.past.loadQuietly().then(draw);
  }

  drawProgress() {
    if (!this.progress) return;
    const gain = this.outbox.entries().reduce((sum, { value }) => sum + (value.gain || 0), 0);
    this.screen.progress(this.progress, gain);
  }

  outboxChanged() {
    this.screen?.saving.draw(this.outbox, this.warning, this.task);
  }

  // --- keys and buttons ---

  meaning(key) {
    const { second } = this.screen;
    if (second.open) return second.find(key) && { second: key };
    if (key === "Escape") return this.current?.changing ? { action: "stay" } : null;
    return this.keymap.find(this.task, key) || null;
  }

  pressed({ second, action }) {
    if (!second) this.act(action);
    else if (performance.now() - this.askedAt >= LOOK_MS) this.screen.second.press(second); // not the choice's key, bouncing
  }

  act(action) {
    if (action === "help") this.screen.help.show(this.task, this.options);
    else if (action === "note") this.options.notes && this.current && this.screen.note.write();
    else if (action === "prompt") this.screen.fold();
    else if (action === "report") this.report();
    else if (action === "stay") this.again.leave();
    else if (action === "undo") this.again.undo();
    else if (TOGGLES.has(action)) this.toggle(action);
    else this.choose(action);
  }

  // Goes with the answer, a skip too; researchers find it among the flagged labels.
  report() {
    if (!this.current || !this.armedAt) return;
    this.screen.set("report", !this.screen.is("report"));
    this.screen.say(this.screen.is("report") ? "Reported with your answer" : "Not reported");
  }

  toggle(name) {
    if (name === "together" && this.task !== "pairwise") return;
    this.screen.toggle(name);
    if (name === "history") this.drawHistory();
  }

  newKeys() {
    this.keymap.load();
    if (this.screen.votes.task) this.screen.drawKeys(this.task);
  }

  // --- deciding ---

  choose(preference) {
    if (!this.current || !this.armedAt || performance.now() - this.armedAt < LOOK_MS) return;
    const said = { preference, strength: "", reasons: [], note: this.options.notes ? this.screen.note.text : "", reported: this.screen.is("report") };
    const measured = this.measured();
    const decide = (more) => this.settle({ ...said, ...more }, measured);
    if (!this.askOn(preference, decide)) decide({});
  }

  // How long the item was looked at and how much of it was on the screen, an earlier showing included.
  measured() {
    const before = this.current.measured || { dwell_ms: 0, read_share: 0 };
    const dwell = Math.max(0, Math.round(performance.now() - this.armedAt - this.hiddenMs));
    return { dwell_ms: before.dwell_ms + dwell, read_share: Math.max(before.read_share, this.screen.panes.share()) };
  }

  // The second keys, in projects that want them; whether something is asked.
  askOn(preference, decide) {
    const { second, votes } = this.screen;
    const before = this.current.changing?.preference === preference ? this.current.changing : {};
    const back = () => (votes.node.hidden = false);
    if (!second.ask(this.current.item.task, preference, this.options, before, decide, back)) return false;
    votes.node.hidden = true;
    this.askedAt = performance.now();
    return true;
  }

  settle(said, measured) {
    const { item, changing } = this.current;
    if (changing) return this.again.change(changing, said, measured);
    this.feed.answered.add(item.id);
    this.past.cast({ item, ...said, measured });
    const gain = said.preference === "skip" ? 0 : 1;
    this.outbox.add({ impression: item.id, event: "cast", ...said, ...measured, gain });
    this.screen.say(nameOf(item.task, said.preference));
    this.next();
  }
}
