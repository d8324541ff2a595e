// What an item looks like. Everything a model or a file wrote arrives as HTML made by the server's allow-list renderer; the view "as
// written" is plain text.

import { el } from "./dom.js";
import { typeset } from "./math.js";

const ROLES = { system: "System prompt", user: "User", assistant: "Assistant" };

function text(part, name) {
  const rendered = el("div", { class: "al-text al-rendered", dir: "auto" });
  rendered.innerHTML = part.html;
  const raw = el("div", { class: "al-text al-raw", dir: "auto" }, part.raw);
  const note = part.note ? el("p", { class: "al-note" }, part.note) : null;
  addCopyButtons(rendered);
  return el("div", { class: name }, rendered, raw, note);
}

function addCopyButtons(root) {
  for (const pre of root.querySelectorAll("pre > code")) {
    const copy = el("button", { type: "button", class: "al-copy", "aria-label": "Copy this code", onclick: () => copyText(pre.textContent, copy) }, "Copy");
    pre.parentElement.classList.add("al-code");
    pre.parentElement.append(copy);
  }
}

async function copyText(what, button) {
  try {
    await navigator.clipboard.writeText(what);
    button.textContent = "Copied";
  } catch (error) {
    button.textContent = "Select and copy by hand";
  }
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

function prompt(turns) {
  const system = turns.filter((turn) => turn.role === "system");
  const spoken = turns.filter((turn) => turn.role !== "system");
  const asked = spoken.pop();
  const parts = [];
  for (const turn of system) {
    parts.push(el("details", { class: "al-more" }, el("summary", {}, ROLES.system), text(turn, "al-turn")));
  }
  if (spoken.length) {
    const turnsBefore = spoken.map((turn) => el("div", { class: "al-turn-of" }, el("span", { class: "al-role" }, ROLES[turn.role] || turn.role), text(turn, "al-turn")));
    const count = `${spoken.length} earlier turn${spoken.length === 1 ? "" : "s"}`;
    parts.push(el("details", { class: "al-more" }, el("summary", {}, count), ...turnsBefore));
  }
  return el(
    "details",
    { class: "al-prompt", open: true },
    el("summary", {}, el("span", { class: "al-tag" }, "Prompt")),
    el("div", { class: "al-prompt-body", tabindex: "0", role: "region", "aria-label": "Prompt" }, ...parts, text(asked, "al-asked")),
  );
}

function pane(side, name, part) {
  return el(
    "section",
    { class: "al-pane", "data-side": side, "aria-label": name },
    name === "Answer" ? null : el("h2", { class: "al-tag" }, name),
    el("div", { class: "al-scroll", tabindex: "0", role: "region", "aria-label": `${name}, text` }, text(part, "al-answer")),
  );
}

// A detached element for one item, and a promise when its formulas are not typeset yet.
export function build(item, base) {
  const panes =
    item.task === "pairwise"
      ? [pane("a", "Answer A", item.left), pane("b", "Answer B", item.right)]
      : [pane("one", "Answer", item.left)];
  const node = el("div", { class: `al-item al-${item.task}` }, prompt(item.turns), el("div", { class: "al-panes" }, ...panes));
  return { node, typesetting: typeset(node, base) };
}
