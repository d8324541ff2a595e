// Which keys do what, as they come and as this browser's owner has changed them. They are dead while somebody types, while a key is held
// down, with Ctrl, Alt or Cmd, during text composition, and when the page says so (nothing painted yet, a dialog open).

import { parse, recall, remember } from "./storage.js";

const KEPT = "al-keymap";

export const CHOICES = {
  pairwise: [
    { action: "a", label: "A is better", short: "A", keys: ["1", "a", "ArrowLeft"], shown: ["1", "ArrowLeft"] },
    { action: "tie", label: "Tie", short: "Tie", keys: ["3", "t"], shown: ["3"] },
    { action: "both_bad", label: "Both bad", short: "Both bad", keys: ["4", "x"], shown: ["4"] },
    { action: "b", label: "B is better", short: "B", keys: ["2", "b", "ArrowRight"], shown: ["2", "ArrowRight"] },
  ],
  binary: [
    { action: "good", label: "Good", short: "Good", keys: ["j", "1"], shown: ["j"] },
    { action: "bad", label: "Bad", short: "Bad", keys: ["k", "2"], shown: ["k"] },
  ],
};

export const OTHERS = [
  { action: "skip", label: "Skip", short: "Skip", keys: ["s"], shown: ["s"] },
  { action: "undo", label: "Undo", short: "Undo", keys: ["u", "Backspace"], shown: ["u"] },
];

export const PAGE_KEYS = [
  { action: "note", label: "Write a note", keys: ["n"], shown: ["n"], needs: "notes" },
  { action: "report", label: "Report that something is wrong with this item", keys: ["f"], shown: ["f"] },
  { action: "raw", label: "Raw text or rendered", keys: ["r"], shown: ["r"] },
  { action: "diff", label: "Mark the differences", keys: ["d"], shown: ["d"], needs: "pairwise" },
  { action: "together", label: "Scroll together", keys: ["y"], shown: ["y"], needs: "pairwise" },
  { action: "prompt", label: "Fold the prompt", keys: ["p"], shown: ["p"] },
  { action: "history", label: "Your last answers", keys: ["h"], shown: ["h"] },
  { action: "help", label: "Keys and help", keys: ["?"], shown: ["?"] },
];

export const nameOf = (task, preference) =>
  [...(CHOICES[task] || []), ...OTHERS].find((choice) => choice.action === preference)?.label || preference;

export const shortOf = (task, preference) =>
  [...(CHOICES[task] || []), ...OTHERS].find((choice) => choice.action === preference)?.short || preference;

export const inWords = (key) =>
  ({ ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" })[key] || (key.length === 1 ? key.toUpperCase() : key);

export const normal = (event) => (event.key.length === 1 ? event.key.toLowerCase() : event.key);

const NEEDED = new Set(["Enter", "Escape", "Tab", " ", "PageUp", "PageDown", "Home", "End"]);
const EVERY = [...CHOICES.pairwise, ...CHOICES.binary, ...OTHERS, ...PAGE_KEYS];
const of = (task) => [...(CHOICES[task] || []), ...OTHERS, ...PAGE_KEYS];

export class Keymap {
  constructor() {
    this.load();
  }

  // What was kept, unless somebody made it contradict itself.
  load() {
    this.own = {};
    const kept = parse(recall(KEPT)) || {};
    for (const { action } of EVERY) {
      if (typeof kept[action] === "string") this.own[action] = kept[action];
    }
    if (EVERY.some((choice) => this.own[choice.action] && this.refusal(choice.action, this.own[choice.action]))) this.own = {};
  }

  keys = (choice) => (this.own[choice.action] ? [this.own[choice.action]] : choice.keys);

  shown = (choice) => (this.own[choice.action] ? [this.own[choice.action]] : choice.shown).map(inWords);

  aria = (choice) => this.keys(choice).map((key) => (key.length === 1 ? key.toUpperCase() : key)).join(" ");

  // The choice that `key` stands for in this task.
  find(task, key) {
    return of(task).find((choice) => this.keys(choice).includes(key));
  }

  // The one key of `action` from now on; the sentence that says why not, or "".
  assign(action, key) {
    const problem = this.refusal(action, key);
    if (problem) return problem;
    this.own[action] = key;
    remember(KEPT, JSON.stringify(this.own));
    return "";
  }

  reset() {
    this.own = {};
    remember(KEPT, "");
  }

  get changed() {
    return Object.keys(this.own).length > 0;
  }

  refusal(action, key) {
    if (NEEDED.has(key)) return `${inWords(key === " " ? "Space" : key)} is needed to move about the page; choose another key.`;
    if (key.length > 1 && !/^(Arrow(Left|Right|Up|Down)|Backspace|Delete|Insert)$/.test(key)) return `${key} cannot be used; choose another key.`;
    const scopes = Object.keys(CHOICES).filter((task) => of(task).some((choice) => choice.action === action));
    const other = scopes.flatMap(of).find((choice) => choice.action !== action && this.keys(choice).includes(key));
    return other ? `${inWords(key)} is the key for “${other.label}” already; choose another, or change that one first.` : "";
  }
}

function typing(target) {
  if (!target || !target.tagName) return false;
  return /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) || target.isContentEditable;
}

// `find(key)` says what a key means now, `dead()` when none counts; `onKey` is told what was found.
export function listen(root, find, dead, onKey) {
  const handler = (event) => {
    if (event.repeat && event.target.closest?.(".al-dock button")) event.preventDefault(); // Enter held on a button would click on and on
    if (event.repeat || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.defaultPrevented || typing(event.target) || root.offsetParent === null || dead()) return;
    const found = find(normal(event));
    if (!found) return;
    event.preventDefault();
    onKey(found);
  };
  document.addEventListener("keydown", handler);
  return () => document.removeEventListener("keydown", handler);
}
