// Looking back: an earlier answer's item on the screen again, to change it or to leave it, and undo.

import { nameOf } from "./keys.js";

const counts = (preference) => (preference === "skip" ? 0 : 1);

export class Again {
  // `page`: the LabelPage, whose current and aside this moves.
  constructor(page) {
    this.page = page;
  }

  // Show an earlier answer's item; the one that was on the screen waits.
  jump(entry) {
    const { page } = this;
    if (page.current?.changing === entry) return;
    if (page.current && !page.current.changing) {
      this.keep(page.current);
      page.aside = page.current;
    }
    const { item, preference, note, reported, measured } = entry;
    page.current = { item, built: null, was: preference, note, reported, measured, changing: entry };
    page.screen.revisit(entry, nameOf(item.task, preference));
    page.screen.say("");
    page.show();
  }

  // Where its texts were scrolled to, and a note that was begun.
  keep(one) {
    one.places = this.page.screen.panes?.places;
    one.note = this.page.screen.note.text;
    one.reported = this.page.screen.is("report");
  }

  change(entry, said, measured) {
    if (isSame(entry, said)) return this.leave();
    this.send(entry, said, measured);
    this.page.past.revise(entry, { ...said, measured });
    this.leave(`Changed to: ${nameOf(entry.item.task, said.preference)}`);
  }

  send(entry, said, measured) {
    const gain = counts(said.preference) - counts(entry.preference);
    this.page.outbox.add({ impression: entry.item.id, event: "revised", ...said, ...measured, gain });
  }

  // Back to the item that waits.
  leave(words = "Left as it was") {
    const { page } = this;
    if (!page.current?.changing) return;
    page.screen.revisit(null);
    page.screen.say(words);
    page.current = page.aside;
    page.aside = null;
    if (page.current) page.show();
    else page.next();
    page.drawProgress();
    page.drawHistory();
  }

  // Take the last thing done back: an answer's item is shown again, a changed answer becomes what it was.
  async undo() {
    const { page } = this;
    if (page.current?.changing) return this.leave();
    if (this.undoing) return;
    this.undoing = true;
    try {
      const problem = page.past.entries.length ? "" : await page.past.load();
      const deed = page.past.pop();
      if (!deed) page.screen.say(problem || "There is nothing to undo.");
      else if (deed.kind === "revised") this.changeBack(deed);
      else this.takeBack(deed.entry);
    } finally {
      this.undoing = false;
    }
  }

  changeBack({ entry, before, after }) {
    const { measured, ...said } = before;
    this.send(entry, said, measured || after.measured); // of an earlier visit this page knows no measure
    Object.assign(entry, before);
    this.page.screen.say(`Changed back to: ${nameOf(entry.item.task, before.preference)}`);
    this.page.drawHistory();
    this.page.drawProgress();
  }

  takeBack({ item, preference, note, reported, measured }) {
    const { page } = this;
    page.feed.answered.delete(item.id);
    page.outbox.add({ impression: item.id, event: "retracted", preference: "", gain: -counts(preference) });
    if (page.current) {
      this.keep(page.current);
      page.feed.putBack(page.current);
    }
    page.feed.drop(new Set([item.id]));
    page.current = { item, built: null, was: preference, note, reported, measured };
    page.show();
    page.drawProgress();
    page.screen.say(`Taken back: ${nameOf(item.task, preference)}`);
  }
}

function isSame(one, other) {
  const text = ({ preference, strength = "", reasons = [], note = "", reported = false }) =>
    JSON.stringify([preference, strength, [...reasons].sort(), note, reported]);
  return text(one) === text(other);
}
