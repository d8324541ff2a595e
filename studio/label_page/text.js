// Text as it was written, in blocks that the browser lays out only when they come near the screen: 50,000 characters cost no more than
// what is seen of them.

import { el } from "./dom.js";

const LONG = 16_000; // characters; shorter texts are one block and need no guess at their height
const BLOCK = 2_000; // characters after which a block ends with its line
const LONGEST_LINE = 20_000; // a line beyond this is broken, wherever it is
const LINE_CHARACTERS = 66;
const LINE_PX = 21;

// `runs`: [{text, marked}] in order. Their text, every character of it, in `<div class="al-block">`s.
export function blocks(runs) {
  const total = runs.reduce((sum, run) => sum + run.text.length, 0);
  if (total <= LONG) return [el("div", {}, ...runs.filter((run) => run.text).map(node))];
  const made = [];
  let open = [];
  let size = 0;
  const close = () => {
    if (open.length) made.push(block(open));
    open = [];
    size = 0;
  };
  for (const run of runs) {
    for (let rest = run.text; rest; ) {
      const end = cut(rest, BLOCK - size, LONGEST_LINE - size);
      const piece = rest.slice(0, end);
      open.push({ text: piece, marked: run.marked });
      size += piece.length;
      rest = rest.slice(end);
      if (piece.endsWith("\n") && size >= BLOCK) close();
      else if (size >= LONGEST_LINE) close();
    }
  }
  close();
  return made;
}

// Where a block may end at the earliest: after the first line break behind `wanted` characters, never within a pair of surrogates.
function cut(text, wanted, longest) {
  const at = text.indexOf("\n", Math.max(0, wanted - 1));
  let end = at < 0 ? text.length : at + 1;
  if (end > longest) end = longest;
  if (end < text.length && /[\uD800-\uDBFF]/.test(text[end - 1])) end += 1;
  return Math.max(1, end);
}

function node({ text, marked }) {
  return marked ? el("mark", { class: "al-mark" }, text) : text;
}

function block(runs) {
  const last = runs[runs.length - 1];
  const text = runs.map((run) => run.text).join("");
  last.text = last.text.replace(/\n$/, ""); // the block's own end says it
  const lines = text.split("\n").reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / LINE_CHARACTERS)), 0);
  const made = el("div", { class: "al-block" }, ...runs.filter((run) => run.text).map(node));
  made.style.containIntrinsicBlockSize = `auto ${lines * LINE_PX}px`;
  return made;
}

// The same for what the server rendered: its paragraphs, lists and tables are laid out when they come near.
export function lazily(rendered) {
  if (rendered.textContent.length <= LONG) return;
  for (const plain of rendered.querySelectorAll("pre.al-plain")) {
    if (plain.textContent.length > LONG) plain.replaceChildren(...blocks([{ text: plain.textContent, marked: false }]));
  }
  for (const child of rendered.children) {
    if (child.matches("pre.al-plain")) continue;
    child.classList.add("al-block");
    child.style.containIntrinsicBlockSize = `auto ${Math.ceil(child.textContent.length / LINE_CHARACTERS) * 26 + 8}px`;
  }
}
