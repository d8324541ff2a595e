// What an item looks like. Everything a model or a file wrote arrives as HTML made by the server's allow-list renderer; the views "raw"
// and "differences" are plain text.

import { compare } from "./diff.js";
import { el } from "./dom.js";
import { typeset } from "./math.js";
import { recall, remember } from "./storage.js";
import { blocks, lazily } from "./text.js";

const ROLES = { system: "System prompt", user: "User", assistant: "Assistant" };
const SIDES = { a: "Answer A", b: "Answer B", one: "Answer" };

function text(part, name, runs = null) {
  const rendered = el("div", { class: "al-text al-rendered", dir: "auto" });
  rendered.innerHTML = part.html;
  const raw = el("div", { class: "al-text al-raw", dir: "auto" }, ...blocks([{ text: part.raw, marked: false }]));
  const marked = runs && el("div", { class: "al-text al-diff", dir: "auto" }, ...blocks(runs));
  const note = part.note ? el("p", { class: "al-note" }, part.note) : null;
  addCopyButtons(rendered);
  lazily(rendered);
  return el("div", { class: name }, rendered, raw, marked, note);
}

function addCopyButtons(root) {
  for (const pre of root.querySelectorAll("pre:has(> code)")) {
    const copy = el("button", { type: "button", class: "al-copy", "aria-label": "Copy this code", onclick: () => copyText(pre, copy) }, "Copy");
    const box = el("div", { class: "al-code" });
    pre.tabIndex = 0; // it may scroll sideways, with the keyboard too
    pre.replaceWith(box);
    box.append(pre, copy);
  }
}

async function copyText(pre, button) {
  try {
    await navigator.clipboard.writeText(pre.textContent);
    button.textContent = "Copied";
  } catch (error) {
    getSelection().selectAllChildren(pre); // the browser allows no copying here: at least it is selected
    button.textContent = "Selected: press Ctrl C";
  }
  setTimeout(() => (button.textContent = "Copy"), 2_000);
}

// A part that stays folded or open from item to item, as it was left.
function fold(key, open, attributes, ...children) {
  const details = el("details", { ...attributes, "data-fold": key, open: recall(key) ? recall(key) === "open" : open }, ...children);
  details.addEventListener("toggle", () => details.isConnected && remember(key, details.open ? "open" : "folded"));
  return details;
}

function prompt(turns) {
  const system = turns.filter((turn) => turn.role === "system");
  const spoken = turns.filter((turn) => turn.role !== "system");
  const asked = spoken.pop();
  const parts = [];
  for (const turn of system) {
    parts.push(fold("al-system", false, { class: "al-more" }, el("summary", {}, ROLES.system), text(turn, "al-turn")));
  }
  if (spoken.length) {
    const turnsBefore = spoken.map((turn) => el("div", { class: "al-turn-of" }, el("span", { class: "al-role" }, ROLES[turn.role] || turn.role), text(turn, "al-turn")));
    const count = `${spoken.length} earlier turn${spoken.length === 1 ? "" : "s"}`;
    parts.push(fold("al-earlier", false, { class: "al-more" }, el("summary", {}, count), ...turnsBefore));
  }
  return fold(
    "al-prompt",
    true,
    { class: "al-prompt" },
    el("summary", {}, el("span", { class: "al-tag" }, "Prompt"), el("span", { class: "al-asked-short", "aria-hidden": "true" }, firstWords(asked.raw, 120))),
    el("div", { class: "al-prompt-body", tabindex: "0", role: "region", "aria-label": "Prompt" }, ...parts, text(asked, "al-asked")),
  );
}

export const firstWords = (raw, n) => {
  const line = raw.slice(0, 4 * n).replace(/\s+/g, " ").trim();
  return line.length > n ? `${line.slice(0, n)}…` : line;
};

function pane(side, part, runs) {
  const name = SIDES[side];
  return el(
    "section",
    { class: "al-pane", "data-side": side, "aria-label": name },
    side === "one" ? null : el("h2", { class: "al-tag" }, name),
    el("div", { class: "al-scroll", tabindex: "0", role: "region", "aria-label": `${name}, text` }, text(part, "al-answer", runs)),
  );
}

// On a phone, where one answer is on the screen at a time: which one, and the way to the other.
function which() {
  const tab = (side) => el("button", { type: "button", class: "al-which-one", "data-side": side, "aria-pressed": String(side === "a") }, SIDES[side]);
  return el("div", { class: "al-which", role: "group", "aria-label": "Which answer is on the screen" }, tab("a"), tab("b"));
}

function sameNote(difference) {
  return difference?.same ? el("p", { class: "al-same" }, "The words are the same; only spaces or line breaks differ.") : null;
}

// {node, typesetting, near}: a detached element for one item; a promise when its formulas are not typeset yet; whether the answers are
// near-identical, and so have their differences marked.
export function build(item, base) {
  const two = item.task === "pairwise";
  const difference = two ? compare(item.left.raw, item.right.raw) : null;
  const panes = two ? [pane("a", item.left, difference?.left), pane("b", item.right, difference?.right)] : [pane("one", item.left)];
  const answers = el("div", { class: "al-panes" }, ...panes);
  const node = el("div", { class: `al-item al-${item.task}` }, prompt(item.turns), two ? which() : null, sameNote(difference), answers);
  return { node, typesetting: typeset(node, base), near: Boolean(difference) };
}

// An item that was built ahead of time is folded as the one before it was left.
export function refold(node) {
  for (const details of node.querySelectorAll("details[data-fold]")) {
    const kept = recall(details.dataset.fold);
    if (kept && details.open !== (kept === "open")) details.open = kept === "open";
  }
}
