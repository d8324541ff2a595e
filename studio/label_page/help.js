// The help: what each key does, and the way to change it.

import { button, el } from "./dom.js";
import { CHOICES, OTHERS, PAGE_KEYS, inWords, normal } from "./keys.js";

const MODIFIERS = new Set(["Shift", "Control", "Alt", "Meta", "AltGraph", "CapsLock", "Dead", "Process", "Unidentified"]);

export class Help {
  // `changed()`: keys are others now.
  constructor(keymap, changed) {
    this.keymap = keymap;
    this.changed = changed;
    this.waiting = ""; // the action whose new key is awaited
    this.problem = el("p", { class: "al-help-problem", role: "alert" });
    this.node = el("dialog", { class: "al-help", "aria-label": "Keys and help" });
    this.node.addEventListener("click", (event) => event.target === this.node && this.node.close());
    this.node.addEventListener("close", () => this.await("", ""));
    this.node.addEventListener("cancel", (event) => this.waiting && event.preventDefault());
    this.node.addEventListener("keydown", (event) => this.waiting && this.take(event));
  }

  get open() {
    return this.node.open;
  }

  show(task, options) {
    this.known = [...CHOICES[task], ...OTHERS, ...PAGE_KEYS].filter(
      ({ needs }) => !needs || (needs === "pairwise" ? task === "pairwise" : options[needs]),
    );
    this.draw();
    this.node.showModal();
  }

  draw() {
    const rows = this.known.map((choice) => {
      const waits = this.waiting === choice.action;
      const keys = waits ? [el("em", {}, "Press the new key …")] : this.keymap.keys(choice).map((key) => el("kbd", {}, inWords(key)));
      const change = button(
        { class: "al-change", "data-action": choice.action, "aria-label": `Change the key for ${choice.label}`, onclick: () => this.await(waits ? "" : choice.action, "") },
        waits ? "Cancel" : "Change",
      );
      return el("tr", {}, el("td", {}, choice.label), el("td", {}, ...keys), el("td", {}, change));
    });
    const why = "Keys rest while you type, while one is held down, and until the answers are on the screen.";
    const again = this.keymap.changed ? button({ class: "al-link al-second-link", onclick: () => this.reset() }, "All keys as they came") : null;
    const close = button({ class: "al-link", onclick: () => this.node.close() }, "Close");
    this.node.replaceChildren(
      el("h2", {}, "Keys"),
      el("table", {}, el("tbody", {}, ...rows)),
      this.problem,
      el("p", {}, why),
      el("div", { class: "al-help-ends" }, close, again),
    );
  }

  await(action, problem) {
    const before = this.waiting;
    this.waiting = action;
    this.problem.textContent = problem;
    if (!this.open) return;
    this.draw();
    this.node.querySelector(`.al-change[data-action="${action || before}"]`)?.focus();
  }

  take(event) {
    if (MODIFIERS.has(event.key) || event.repeat) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.key === "Escape") return this.await("", "");
    const problem = this.keymap.assign(this.waiting, normal(event));
    this.await(problem ? this.waiting : "", problem);
    if (!problem) this.changed();
  }

  reset() {
    this.keymap.reset();
    this.await("", "");
    this.changed();
  }
}
