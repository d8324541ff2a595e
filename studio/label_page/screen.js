// The page around the items: progress, status, vote bar, guidelines, notices, help. It draws what it is told and reports what is pressed;
// what happens then is label.js's business.

import { el, kbd } from "./dom.js";
import { CHOICES, OTHERS, PAGE_KEYS, ariaKeys, inWords, nameOf } from "./keys.js";

const NARROW = 720; // as in label.css
const LEAST_ROOM = 260;
const PANE_EXTRA = 54; // an answer's heading and borders, and the gap below
const MIDDLE = new Set(["tie", "both_bad"]);

const button = (attributes, ...children) => el("button", { type: "button", ...attributes }, ...children);
const plural = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

export class Screen {
  // `root` is the app's address; `does` has act(action), hurry() and dismiss().
  constructor(element, root, does) {
    this.home = root;
    this.does = does;
    this.task = "";
    this.noted = "";
    this.count = el("span", { class: "al-count" });
    this.bar = el("span", { class: "al-bar-fill" });
    this.barBox = el("div", { class: "al-bar", role: "progressbar", "aria-label": "Labels", "aria-valuemin": "0" }, this.bar);
    this.saved = el("span", { class: "al-status", role: "status", "data-kind": "" });
    this.rawButton = button(
      { class: "al-quiet", "aria-keyshortcuts": "R", title: "Show the texts as they were written", onclick: () => does.act("raw") },
      "Raw",
      kbd(["R"]),
    );
    const keys = button({ class: "al-quiet al-for-keys", "aria-keyshortcuts": "?", onclick: () => does.act("help") }, "Keys", kbd(["?"]));
    this.guidelines = el("details", { class: "al-guidelines", hidden: true });
    this.problems = el("div", { class: "al-problems" });
    this.stage = el("div", { class: "al-stage" });
    this.votes = el("div", { class: "al-votes", role: "group", "aria-label": "Your answer" });
    this.said = el("span", { class: "al-said", "aria-live": "polite" });
    this.help = el("dialog", { class: "al-help", "aria-label": "Keys" });
    this.help.addEventListener("click", (event) => event.target === this.help && this.help.close());
    this.dock = el("div", { class: "al-dock" }, this.votes, this.said);
    this.root = el(
      "div",
      { class: "al", "data-state": "loading" },
      el("h1", { class: "al-hidden" }, "Label"),
      el("div", { class: "al-top" }, el("div", { class: "al-progress" }, this.count, this.barBox), this.saved, this.rawButton, keys),
      this.guidelines,
      this.problems,
      this.stage,
      this.dock,
      this.help,
    );
    this.setRaw(Boolean(recall("al-raw")));
    element.replaceChildren(this.root);
    this.resized = new ResizeObserver(() => this.fit());
    for (const above of [document.documentElement, this.guidelines, this.problems]) this.resized.observe(above);
    this.root.addEventListener("toggle", () => this.fit(), true); // a details element above the answers
  }

  get state() {
    return this.root.dataset.state;
  }

  // --- an item ---

  item(node, task, was) {
    this.root.dataset.state = "ready";
    this.root.dataset.armed = "";
    this.stage.replaceChildren(node);
    this.voteBar(task);
    this.fit();
    for (const vote of this.votes.children) vote.toggleAttribute("data-was", vote.dataset.action === was);
    const top = this.stage.getBoundingClientRect().top;
    if (top < 0) window.scrollBy({ top: top - 8, behavior: "instant" });
  }

  // The answers get what the window has left, so that a short page needs no scrolling and a long answer scrolls in its own pane.
  fit() {
    // On a phone the vote bar stays under the thumb, however short the answers. Not in a frame, which may grow with its page for ever.
    const phone = window.innerWidth <= NARROW && window.self === window.top;
    const top = this.root.getBoundingClientRect().top + window.scrollY;
    this.root.style.minHeight = phone ? `${Math.max(0, Math.floor(window.innerHeight - top))}px` : "";
    const panes = this.stage.querySelector(".al-panes");
    if (!panes) return;
    const above = panes.getBoundingClientRect().top + window.scrollY;
    const room = window.innerHeight - above - this.dock.offsetHeight - PANE_EXTRA;
    const wanted = `${Math.max(LEAST_ROOM, Math.round(room))}px`;
    if (this.root.style.getPropertyValue("--al-room") !== wanted) this.root.style.setProperty("--al-room", wanted);
  }

  armed(id) {
    this.root.dataset.armed = id;
  }

  voteBar(task) {
    if (task === this.task) return;
    this.task = task;
    const vote = (choice, kind) =>
      button(
        {
          class: `al-vote al-${kind}`,
          "data-action": choice.action,
          "aria-keyshortcuts": ariaKeys(choice),
          onclick: () => this.does.act(choice.action),
        },
        el("span", {}, choice.label),
        kbd(choice.shown),
      );
    const main = CHOICES[task].map((choice) => vote(choice, MIDDLE.has(choice.action) ? "middle" : "main"));
    this.votes.replaceChildren(...main, ...OTHERS.map((choice) => vote(choice, "other")));
    this.votes.dataset.task = task;
    this.drawHelp();
  }

  toggleRaw() {
    const raw = !this.root.classList.contains("al-show-raw");
    this.setRaw(raw);
    remember("al-raw", raw ? "1" : "");
  }

  setRaw(raw) {
    this.root.classList.toggle("al-show-raw", raw);
    this.rawButton.setAttribute("aria-pressed", String(raw));
  }

  say(text) {
    this.said.textContent = text;
  }

  // --- no item ---

  note(state, title, text, ...actions) {
    this.root.dataset.state = state;
    this.root.dataset.armed = "";
    const row = actions.length ? el("div", { class: "al-actions" }, ...actions) : null;
    this.stage.replaceChildren(el("div", { class: "al-notice" }, el("h2", {}, title), text ? el("p", {}, text) : null, row));
  }

  waiting() {
    this.note("loading", "Fetching the next ones …", "");
  }

  empty(task) {
    const what = task === "pairwise" ? "pair of different answers" : "answer";
    this.note(
      "empty",
      "Nothing to label yet",
      `There is no ${what} in this project. Let a model answer its prompts, or import answers: they appear here by themselves.`,
      this.link("data?tab=generate", "Generate answers"),
      this.link("data?tab=import", "Import", true),
    );
  }

  done(progress) {
    const some = progress && progress.complete < progress.total;
    const rest = some ? "What is left was skipped by you or is on another person’s screen." : "Every item has its label.";
    this.note(
      "done",
      "All done",
      `${rest} New ones appear here by themselves.`,
      this.link("train", "Train on these labels"),
      this.link("data?tab=generate", "Generate more", true),
      button({ class: "al-link al-second", onclick: () => this.does.act("undo") }, "Undo the last one"),
    );
  }

  link(path, text, second = false) {
    return el("a", { class: `al-link${second ? " al-second" : ""}`, href: `${this.home}${path}` }, text);
  }

  // --- around it ---

  project(project) {
    const where = document.querySelector(".st-where");
    if (where) where.textContent = project.name;
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
    this.count.replaceChildren(el("strong", {}, String(done)), ` of ${p.target} `, el("span", { class: "al-for" }, p.meaning));
    if (done >= p.first_run) this.count.append(" ", el("a", { href: `${this.home}train`, class: "al-go" }, "Train now"));
    this.bar.style.width = `${Math.min(100, (100 * done) / Math.max(1, p.target))}%`;
    this.barBox.setAttribute("aria-valuemax", String(p.target));
    this.barBox.setAttribute("aria-valuenow", String(Math.min(done, p.target)));
  }

  status(outbox, warning) {
    const { unsent, trouble } = outbox;
    const words = !unsent ? "All saved" : trouble ? `${unsent} unsent` : `Saving ${unsent}`;
    const shown = outbox.who ? words : "";
    this.saved.dataset.kind = !outbox.who ? "" : !unsent ? "saved" : trouble ? "waiting" : "sending";
    if (this.saved.textContent !== shown) this.saved.textContent = shown;
    const notes = [unsent && trouble ? this.unsentNote(outbox) : null, this.deadNote(outbox.dead()), warning ? warn(warning) : null];
    const there = notes.filter(Boolean);
    const key = there.map((note) => note.textContent).join("\n");
    if (key !== this.noted) this.problems.replaceChildren(...there);
    this.noted = key;
  }

  unsentNote({ unsent, trouble, volatile }) {
    const why = {
      offline: "The server cannot be reached.",
      signin: trouble.message || "The server does not know you any more; sign in again in another tab.",
      server: trouble.message || "The server has a problem.",
    }[trouble.kind];
    const kept = volatile
      ? "Keep this tab open: your browser allows no storage here."
      : "This browser keeps what you answer and sends it as soon as it can; you can go on.";
    const again = button({ class: "al-inline", onclick: () => this.does.hurry() }, "Try now");
    return warn(`${why} ${plural(unsent, "label")} unsent, none lost. ${kept} `, again);
  }

  deadNote(dead) {
    if (!dead.length) return null;
    const rows = dead.map(({ value }) => {
      const what = value.event === "retracted" ? "Undo" : nameOf(this.task || "pairwise", value.preference);
      return el("li", {}, `${what}, ${new Date(value.client_at).toLocaleTimeString()}: ${value.reason}`);
    });
    const gone = button({ class: "al-inline", onclick: () => this.does.dismiss() }, "Remove this list");
    const title = el("summary", {}, `${plural(dead.length, "label")} could not be stored`);
    return el("details", { class: "al-warn", open: true }, title, el("ul", {}, ...rows), gone);
  }

  drawHelp() {
    const rows = [...CHOICES[this.task], ...OTHERS, ...PAGE_KEYS].map((choice) =>
      el("tr", {}, el("td", {}, ...choice.keys.map((key) => el("kbd", {}, inWords(key)))), el("td", {}, choice.label)),
    );
    const why = "Keys rest while you type, while one is held down, and until the answers are on the screen.";
    const close = button({ class: "al-link", onclick: () => this.help.close() }, "Close");
    this.help.replaceChildren(el("h2", {}, "Keys"), el("table", {}, el("tbody", {}, ...rows)), el("p", {}, why), close);
  }
}

const warn = (...children) => el("p", { class: "al-warn" }, ...children);

function recall(key) {
  try {
    return localStorage.getItem(key) || "";
  } catch (error) {
    return "";
  }
}

function remember(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch (error) {
    // A preference that is forgotten harms nobody.
  }
}
