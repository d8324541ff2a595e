// The page around the items: progress, tools, vote bar, guidelines. It draws what it is told and reports what is pressed; what happens
// then is label.js's business.

import { NoteBox, SecondStep, VoteBar } from "./bar.js";
import { button, el, kbd } from "./dom.js";
import { Help } from "./help.js";
import { PAGE_KEYS } from "./keys.js";
import { Notices, Saving } from "./notices.js";
import { Panes } from "./panes.js";
import { recall, remember } from "./storage.js";
import { Strip } from "./strip.js";
import { refold } from "./view.js";

const NARROW = 720; // as in label.css
const STRIP_ROOM = { width: 1000, height: 760 }; // a window that shows the last answers unasked
const LEAST_ROOM = 260;
const PANE_EXTRA = 54; // an answer's heading and borders, and the gap below
const CONSISTENT_FROM = 5; // repeats: fewer say nothing

export class Screen {
  // `root` is the app's address; `does` has act(action), jump(entry), stay(), hurry(), dismiss() and remapped().
  constructor(element, root, keymap, does) {
    this.home = root;
    this.does = does;
    this.keymap = keymap;
    this.panes = null;
    this.notices = new Notices(root, (state, node) => this.put(state, node), does.act);
    this.saving = new Saving(root, does);
    this.votes = new VoteBar(keymap, does.act);
    this.second = new SecondStep();
    this.note = new NoteBox();
    this.strip = new Strip(does.jump);
    this.help = new Help(keymap, () => does.remapped());
    this.count = el("span", { class: "al-count" });
    this.bar = el("span", { class: "al-bar-fill" });
    this.barBox = el("div", { class: "al-bar", role: "progressbar", "aria-label": "Labels", "aria-valuemin": "0" }, this.bar);
    this.tools = el("div", { class: "al-tools" });
    this.guidelines = el("details", { class: "al-guidelines", hidden: true });
    this.changing = el("div", { class: "al-changing", role: "status", hidden: true });
    this.stage = el("div", { class: "al-stage" });
    this.dock = el("div", { class: "al-dock" }, this.note.node, this.second.node, this.votes.node, this.strip.node);
    this.root = el(
      "div",
      { class: "al", "data-state": "loading" },
      el("h1", { class: "al-hidden" }, "Label"),
      el(
        "div",
        { class: "al-top" },
        el("div", { class: "al-progress" }, this.count, this.barBox),
        this.saving.status,
        this.tools,
      ),
      this.guidelines,
      this.saving.problems,
      this.changing,
      this.stage,
      this.dock,
      this.help.node,
    );
    this.set("raw", Boolean(recall("al-raw")));
    this.set("together", recall("al-together") === "yes");
    const roomy = window.innerWidth >= STRIP_ROOM.width && window.innerHeight >= STRIP_ROOM.height;
    this.set("history", recall("al-history") ? recall("al-history") === "open" : roomy);
    element.replaceChildren(this.root);
    this.resized = new ResizeObserver(() => this.fit());
    for (const other of [document.documentElement, this.guidelines, this.saving.problems, this.dock]) this.resized.observe(other);
    this.root.addEventListener("toggle", () => this.fit(), true); // a details element above the answers
  }

  close() {
    this.resized.disconnect();
    this.panes?.close();
  }

  get busy() {
    return this.help.open;
  }

  // --- an item ---

  // `near`: its answers are near-identical.
  item(node, task, near, was) {
    this.root.dataset.state = "ready";
    this.root.dataset.armed = "";
    this.leave();
    this.second.close();
    this.votes.node.hidden = false;
    refold(node);
    this.near = near;
    this.set("diff", near && recall("al-diff") !== "off");
    this.stage.replaceChildren(node);
    if (task !== this.votes.task) this.drawKeys(task);
    this.tool("diff").hidden = !near;
    this.panes = new Panes(node, () => this.dock.getBoundingClientRect().top, () => this.is("together"));
    this.votes.mark(was);
    // Measured when the frame has laid it out anyway and has not painted it: asking now would lay the page out twice.
    this.entering = true;
    this.resized.observe(node);
  }

  // Back to where it was left, which the answers' height decides.
  restore(places) {
    this.fit();
    this.panes.restore(places);
  }

  // What was on the stage goes.
  leave() {
    this.panes?.close();
    this.panes = null;
    this.entering = false;
    for (const old of this.stage.children) this.resized.unobserve(old);
  }

  armed(id) {
    this.root.dataset.armed = id;
    this.panes?.look();
  }

  // The answers get what the window has left, so that a short page needs no scrolling and a long answer scrolls in its own pane. On a
  // phone a long one gets a whole screen: there the page is scrolled first, then the answer.
  fit() {
    // On a phone the vote bar stays under the thumb, however short the answers. Not in a frame, which may grow with its page for ever.
    const phone = window.innerWidth <= NARROW;
    const top = this.root.getBoundingClientRect().top + window.scrollY;
    this.root.style.minHeight = phone && window.self === window.top ? `${Math.max(0, Math.floor(window.innerHeight - top))}px` : "";
    const panes = this.stage.querySelector(".al-panes");
    if (!panes) return;
    const above = phone ? 0 : panes.getBoundingClientRect().top + window.scrollY;
    const room = window.innerHeight - above - this.dock.offsetHeight - PANE_EXTRA;
    const wanted = `${Math.max(LEAST_ROOM, Math.round(room))}px`;
    if (this.root.style.getPropertyValue("--al-room") !== wanted) this.root.style.setProperty("--al-room", wanted);
    if (this.entering) this.enter();
  }

  // A new item is read from its beginning.
  enter() {
    this.entering = false;
    const top = this.stage.getBoundingClientRect().top;
    if (top < 0) window.scrollBy({ top: top - 8, behavior: "instant" });
  }

  // While an earlier answer is looked at again: what it was, and the way back.
  revisit(entry, words) {
    this.changing.hidden = !entry;
    if (!entry) return this.changing.replaceChildren();
    const stay = button({ class: "al-inline", onclick: () => this.does.stay() }, el("span", {}, "Leave it as it was"), kbd(["Esc"]));
    this.changing.replaceChildren(el("span", {}, "You answered this before: ", el("strong", {}, words), ". Answer again to change it. "), stay);
  }

  say(text) {
    this.votes.said.textContent = text;
  }

  // --- how it is shown ---

  is(name) {
    return this.root.classList.contains(`al-is-${name}`);
  }

  set(name, on) {
    this.root.classList.toggle(`al-is-${name}`, on);
    this.tool(name)?.setAttribute("aria-pressed", String(on));
    if (name === "history") this.strip.node.hidden = !on;
  }

  toggle(name) {
    const on = !this.is(name);
    if (name === "raw") remember("al-raw", on ? "1" : "");
    if (name === "raw" && this.is("diff")) this.set("diff", false); // both say how the text is shown; the last one said counts
    if (name === "diff" && !this.near) return this.say("These answers are not alike enough to mark differences.");
    if (name === "diff") remember("al-diff", on ? "" : "off");
    if (name === "together") remember("al-together", on ? "yes" : "");
    if (name === "history") remember("al-history", on ? "open" : "closed");
    this.set(name, on);
  }

  fold() {
    const prompt = this.stage.querySelector(".al-prompt");
    if (prompt) prompt.open = !prompt.open;
  }

  tool(name) {
    return this.tools.querySelector(`[data-tool="${name}"]`);
  }

  // Buttons with their keys: at the first item, when the task changes, when a key does.
  drawKeys(task) {
    this.votes.draw(task);
    const tool = (action, name, more = "") => {
      const choice = PAGE_KEYS.find((one) => one.action === action);
      const toggles = action in { report: 1, raw: 1, diff: 1, together: 1, history: 1 };
      return button(
        {
          class: `al-quiet ${more}`,
          "data-tool": action,
          "aria-keyshortcuts": this.keymap.aria(choice),
          "aria-pressed": toggles ? String(this.is(action)) : null,
          title: choice.label,
          onclick: () => this.does.act(action),
        },
        name,
        kbd(this.keymap.shown(choice)),
      );
    };
    const two = task === "pairwise";
    const all = [
      tool("diff", "Differences"), // first, since it comes and goes: the others stay where they are
      this.options?.notes ? tool("note", "Note") : null,
      two ? tool("together", "Scroll together", "al-for-wide") : null,
      tool("raw", "Raw text"),
      tool("report", "Report"),
      tool("history", "History"),
      tool("help", "Keys", "al-for-keys"),
    ];
    this.tools.replaceChildren(...all.filter(Boolean));
    this.tool("diff").hidden = !this.near;
  }

  // --- no item ---

  put(state, node) {
    this.root.dataset.state = state;
    this.root.dataset.armed = "";
    this.second.close();
    this.votes.node.hidden = false;
    this.note.show("");
    this.set("report", false);
    this.leave();
    this.stage.replaceChildren(node);
  }

  // --- around it ---

  project(project, options) {
    const where = document.querySelector(".st-where");
    if (where) where.textContent = project.name;
    this.options = options;
    if (this.votes.task) this.drawKeys(this.votes.task);
    const text = el("div", { class: "al-text" });
    text.innerHTML = project.guidelines; // made by the server's allow-list renderer
    this.guidelines.hidden = !project.guidelines;
    this.guidelines.replaceChildren(el("summary", {}, "Guidelines"), text);
    const before = recall("al-guidelines");
    this.guidelines.open = before ? before === "open" : window.innerWidth > NARROW;
    this.guidelines.ontoggle = () => remember("al-guidelines", this.guidelines.open ? "open" : "closed");
  }

  // `gain`: labels given here that the server has not counted yet.
  progress(p, gain) {
    const done = Math.max(0, p.complete + gain);
    const known = p.target > 0;
    this.barBox.hidden = !known;
    if (!known) return this.count.replaceChildren();
    this.count.replaceChildren(el("strong", {}, String(done)), ` of ${p.target} `, el("span", { class: "al-for" }, p.meaning));
    if (done >= p.first_run && this.notices.leadsTo("train")) this.count.append(" ", el("a", { href: `${this.home}train`, class: "al-go" }, "Train now"));
    this.bar.style.width = `${Math.min(100, (100 * done) / p.target)}%`;
    this.barBox.setAttribute("aria-valuemax", String(p.target));
    this.barBox.setAttribute("aria-valuenow", String(Math.min(done, p.target)));
    this.votes.mine.textContent = mine(p);
  }
}

// What a person is told about their own work, and nobody else about it: how much today, and how often they said the same again.
function mine({ today, consistency }) {
  const parts = [];
  if (today) parts.push(`${today} today`);
  if (consistency?.n >= CONSISTENT_FROM) {
    parts.push(`same answer to ${Math.round(consistency.share * consistency.n)} of ${consistency.n} shown to you twice`);
  }
  return parts.join(" · ");
}
