// The last answers, newest first, each a way back to its item.

import { button, el } from "./dom.js";
import { nameOf, shortOf } from "./keys.js";
import { firstWords } from "./view.js";

export const SHOWN = 20;
const WORDS = 60; // characters of the prompt

export class Strip {
  // `jump(entry)`: an answer was chosen.
  constructor(jump) {
    this.jump = jump;
    this.row = el("div", { class: "al-strip-row", role: "list" });
    this.node = el("section", { class: "al-strip", "aria-label": "Your last answers", hidden: true }, this.row);
    this.cards = new Map(); // entry -> {node, said}
  }

  // `entries`: oldest first. Cards that are there already are kept, so that an answer costs one new card.
  draw(entries, current) {
    const last = entries.slice(-SHOWN).reverse();
    const kept = new Map();
    for (const entry of last) {
      const known = this.cards.get(entry);
      kept.set(entry, known?.said === entry.preference ? known : this.card(entry));
    }
    this.cards = kept;
    const nodes = [...kept.values()].map(({ node }) => node);
    if (!nodes.length) nodes.push(el("p", { class: "al-strip-none" }, "Your last 20 answers are kept here, to look at again or to change."));
    this.put(nodes);
    for (const [entry, { node }] of kept) node.firstElementChild.toggleAttribute("data-here", entry === current);
    this.row.setAttribute("role", kept.size ? "list" : "presentation");
  }

  // After an answer there is one new card, and one too many at the end.
  put(nodes) {
    const there = [...this.row.children];
    if (nodes.length === there.length && nodes.every((node, i) => node === there[i])) return;
    if (!nodes.slice(1).every((node, i) => node === there[i])) return this.row.replaceChildren(...nodes);
    this.row.prepend(nodes[0]);
    while (this.row.children.length > nodes.length) this.row.lastChild.remove();
  }

  card(entry) {
    const { item, preference } = entry;
    const asked = firstWords(item.turns[item.turns.length - 1].raw, WORDS);
    const card = button(
      { class: "al-card", "data-id": item.id, "aria-label": `${nameOf(item.task, preference)}: ${asked}. Look at it again or change it`, onclick: () => this.jump(entry) },
      el("strong", {}, shortOf(item.task, preference)),
      el("span", {}, asked),
    );
    return { node: el("div", { role: "listitem" }, card), said: preference };
  }
}
