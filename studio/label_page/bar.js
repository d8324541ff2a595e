// The vote bar: the buttons under their answers, each with its key. After a choice it may ask on (how much better, why) while the pair
// stays where it is; with nothing to ask it is never in the way.

import { button, el, kbd } from "./dom.js";
import { CHOICES, OTHERS, nameOf } from "./keys.js";

const MIDDLE = new Set(["tie", "both_bad"]);
const STRENGTHS = [
  { value: "slightly", label: "Slightly better", key: "1" },
  { value: "clearly", label: "Clearly better", key: "2" },
];
const MAX_NOTE = 2_000;

export class VoteBar {
  // `act(action)`: a button was pressed.
  constructor(keymap, act) {
    this.keymap = keymap;
    this.act = act;
    this.said = el("span", { class: "al-said", "aria-live": "polite" });
    this.mine = el("span", { class: "al-mine" });
    this.node = el("div", { class: "al-votes", role: "group", "aria-label": "Your answer" });
    this.task = "";
  }

  draw(task) {
    this.task = task;
    const vote = (choice, kind) =>
      button(
        {
          class: `al-vote al-${kind}`,
          "data-action": choice.action,
          "aria-keyshortcuts": this.keymap.aria(choice),
          onclick: () => this.act(choice.action),
        },
        el("span", {}, choice.label),
        kbd(this.keymap.shown(choice)),
      );
    const main = CHOICES[task].map((choice) => vote(choice, MIDDLE.has(choice.action) ? "middle" : "main"));
    this.node.replaceChildren(...main, this.said, this.mine, ...OTHERS.map((choice) => vote(choice, "other")));
    this.node.dataset.task = task;
  }

  mark(was) {
    for (const vote of this.node.querySelectorAll(".al-vote")) vote.toggleAttribute("data-was", vote.dataset.action === was);
  }
}

// What is asked after a choice. Keys: 1 and 2 how much, letters for reasons, Enter goes on, Escape goes back to the choice.
export class SecondStep {
  constructor() {
    this.node = el("div", { class: "al-second", role: "group", hidden: true });
    this.open = false;
  }

  // Whether there is anything to ask. `done({strength, reasons})` when it is answered or passed over, `back()` when the choice is to be another.
  ask(task, preference, options, before, done, back) {
    this.strengths = options.strength && (preference === "a" || preference === "b") ? STRENGTHS : [];
    this.reasons = preference === "skip" ? [] : withKeys(options.reasons || []);
    if (!this.strengths.length && !this.reasons.length) return false;
    Object.assign(this, { done, back, open: true });
    this.strength = this.strengths.length ? before.strength || "" : "";
    this.picked = new Set((before.reasons || []).filter((reason) => this.reasons.some((one) => one.value === reason)));
    this.draw(nameOf(task, preference));
    return true;
  }

  draw(title) {
    const chip = (one, isOn) =>
      button({ class: "al-chip", "aria-pressed": String(isOn), onclick: () => this.press(one.key) }, one.label, kbd([one.key.toUpperCase()]));
    const degree = this.strengths.map((one) => chip(one, one.value === this.strength));
    const why = this.reasons.map((one) => chip(one, this.picked.has(one.value)));
    const go = button({ class: "al-chip al-go-on", onclick: () => this.finish() }, "Go on", kbd(["Enter"]));
    const back = button({ class: "al-chip al-plain-chip", onclick: () => this.cancel() }, "Back", kbd(["Esc"]));
    this.title = title;
    this.node.setAttribute("aria-label", `More about “${title}”`);
    this.node.replaceChildren(el("strong", {}, `${title}:`), ...degree, ...why, go, back);
    this.node.hidden = false;
  }

  find(key) {
    if (key === "Enter" || key === "Escape" || key === "Backspace") return key;
    return [...this.strengths, ...this.reasons].some((one) => one.key === key) ? key : null;
  }

  press(key) {
    if (key === "Enter") return this.finish();
    if (key === "Escape" || key === "Backspace") return this.cancel();
    const degree = this.strengths.find((one) => one.key === key);
    const reason = this.reasons.find((one) => one.key === key);
    if (degree) this.strength = this.strength === degree.value && this.reasons.length ? "" : degree.value;
    else if (reason && !this.picked.delete(reason.value)) this.picked.add(reason.value);
    if (degree && !this.reasons.length) return this.finish();
    this.draw(this.title);
  }

  finish() {
    const said = { strength: this.strength, reasons: this.reasons.map((one) => one.value).filter((value) => this.picked.has(value)) };
    this.close();
    this.done(said);
  }

  cancel() {
    this.close();
    this.back();
  }

  close() {
    this.open = false;
    this.node.hidden = true;
  }
}

// Each reason with the first of its letters that is still free, or any that is.
function withKeys(reasons) {
  const free = new Set("abcdefghijklmnopqrstuvwxyz3456789");
  return reasons.map((reason) => {
    const key = [...reason.toLowerCase(), ...free].find((letter) => free.has(letter)) || "";
    free.delete(key);
    return { value: reason, label: reason, key };
  });
}

// A few words that go with the answer. Keys rest while one writes; Escape and Ctrl Enter go back to them.
export class NoteBox {
  constructor() {
    this.box = el("textarea", { class: "al-note-box", rows: "2", maxlength: String(MAX_NOTE), placeholder: "Goes with your next answer" });
    this.node = el("label", { class: "al-note-field", hidden: true }, el("span", {}, "Note"), this.box);
    this.box.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" && !(event.key === "Enter" && (event.ctrlKey || event.metaKey))) return;
      event.preventDefault();
      event.stopPropagation();
      if (!this.text) this.node.hidden = true;
      this.box.blur();
    });
  }

  get text() {
    return this.box.value.trim();
  }

  show(text) {
    if (this.box.value !== text) this.box.value = text;
    if (this.node.hidden !== !text) this.node.hidden = !text;
  }

  write() {
    this.node.hidden = false;
    this.box.focus();
  }
}
