// What stands where an item would be when there is none, and the notes about labels that have not arrived.

import { button, el, plural } from "./dom.js";
import { nameOf } from "./keys.js";

const warn = (...children) => el("p", { class: "al-warn" }, ...children);

// Each draws one state of the page. `home` is the app's address, `put(state, node)` shows it.
export class Notices {
  constructor(home, put, act) {
    this.home = home;
    this.put = put;
    this.act = act;
  }

  note(state, title, text, ...actions) {
    const row = actions.length ? el("div", { class: "al-actions" }, ...actions) : null;
    this.put(state, el("div", { class: "al-notice" }, el("h2", {}, title), text ? el("p", {}, text) : null, row));
  }

  waiting() {
    this.note("loading", "Fetching the next ones …", "");
  }

  notReached(error) {
    const signIn = error.status === 401 ? this.link("sign-in", "Sign in") : null;
    this.note("problem", signIn ? "You are signed out" : "The next ones cannot be fetched", error.message, ...(signIn ? [signIn] : []));
  }

  empty(task) {
    const what = task === "pairwise" ? "pair of different answers" : "answer";
    const how = this.leadsTo("data") ? "Let a model answer its prompts, or import answers: they appear here by themselves." : "New ones appear here by themselves.";
    const ways = [this.way("data?tab=generate", "Generate answers"), this.way("data?tab=import", "Import", true)];
    this.note("empty", "Nothing to label yet", `There is no ${what} in this project. ${how}`, ...ways.filter(Boolean));
  }

  elsewhere() {
    this.note("done", "The rest is in another tab", "What is left to label is on the screen of another tab of yours. New ones appear here by themselves.");
  }

  done(progress) {
    const some = progress && progress.complete < progress.total;
    const rest = some ? "What is left was skipped by you or is on another person’s screen." : "Every item has its label.";
    const undo = button({ class: "al-link al-second-link", onclick: () => this.act("undo") }, "Undo the last one");
    const ways = [this.way("train", "Train on these labels"), this.way("data?tab=generate", "Generate more", true), undo];
    this.note("done", "All done", `${rest} New ones appear here by themselves.`, ...ways.filter(Boolean));
  }

  // An annotator's page leads to no other page of the studio, and so offers none.
  leadsTo(path) {
    return Boolean(document.querySelector(`.st-nav a[href$="/${path.split("?")[0]}"]`));
  }

  way(path, text, second) {
    return this.leadsTo(path) ? this.link(path, text, second) : null;
  }

  link(path, text, second = false) {
    return el("a", { class: `al-link${second ? " al-second-link" : ""}`, href: `${this.home}${path}` }, text);
  }
}

// How it stands with what was said here: one short status, and what needs words.
export class Saving {
  constructor(home, does) {
    this.home = home;
    this.does = does;
    this.noted = "";
    this.status = el("span", { class: "al-status", role: "status", "data-kind": "" });
    this.problems = el("div", { class: "al-problems" });
  }

  draw(outbox, warning, task) {
    const { unsent, trouble } = outbox;
    const words = !unsent ? "All saved" : trouble ? `${unsent} unsent` : `Saving ${unsent}`;
    const shown = outbox.who ? words : "";
    this.status.dataset.kind = !outbox.who ? "" : !unsent ? "saved" : trouble ? "waiting" : "sending";
    if (this.status.textContent !== shown) this.status.textContent = shown;
    const notes = [unsent && trouble ? this.unsent(outbox) : null, this.dead(outbox.dead(), task), warning ? warn(warning) : null];
    const there = notes.filter(Boolean);
    const key = there.map((note) => note.textContent).join("\n");
    if (key !== this.noted) this.problems.replaceChildren(...there);
    this.noted = key;
  }

  unsent({ unsent, trouble, volatile }) {
    const why = {
      offline: "The server cannot be reached.",
      signin: trouble.message || "The server does not know you any more.",
      server: trouble.message || "The server has a problem.",
    }[trouble.kind];
    const kept = volatile
      ? "Keep this tab open: your browser allows no storage here."
      : "This browser keeps what you answer and sends it as soon as it can; you can go on.";
    const again = button({ class: "al-inline", onclick: () => this.does.hurry() }, "Try now");
    const signIn = el("a", { class: "al-inline", href: `${this.home}sign-in`, target: "_blank" }, "Sign in (in a new tab)");
    const ends = trouble.status === 401 ? [signIn, " ", again] : [again];
    return warn(`${why} ${plural(unsent, "label")} unsent, none lost. ${kept} `, ...ends);
  }

  dead(dead, task) {
    if (!dead.length) return null;
    const rows = dead.map(({ value }) => {
      const what = value.event === "retracted" ? "Undo" : nameOf(task || "pairwise", value.preference);
      return el("li", {}, `${what}, ${new Date(value.client_at).toLocaleTimeString()}: ${value.reason}`);
    });
    const gone = button({ class: "al-inline", onclick: () => this.does.dismiss() }, "Remove this list");
    const title = el("summary", {}, `${plural(dead.length, "label")} could not be stored`);
    return el("details", { class: "al-warn", open: true }, title, el("ul", {}, ...rows), gone);
  }
}
