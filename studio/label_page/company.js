// The page among others: other tabs of the same person, the network that comes and goes, the page that is left and comes back.

import { parse } from "./storage.js";

export class Company {
  // `page`: the LabelPage.
  constructor(page) {
    this.page = page;
    this.hiddenAt = 0;
    this.ends = new AbortController();
    const on = (target, name, handler) => target.addEventListener(name, handler, { signal: this.ends.signal });
    on(window, "pagehide", () => this.leave());
    on(window, "pageshow", (event) => event.persisted && this.comeBack());
    on(window, "beforeunload", (event) => page.outbox.unsent && event.preventDefault());
    on(window, "online", () => page.outbox.hurry().then(() => page.feed.refill(true)));
    on(window, "storage", (event) => this.otherTab(event));
    on(document, "visibilitychange", () => this.visibility());
  }

  close() {
    this.ends.abort();
  }

  // What another tab of this person answered is not to be answered here; what it no longer shows may be.
  otherTab(event) {
    const { page } = this;
    if (event.key === "al-keymap") return page.newKeys();
    if (page.tabs.heard(event.key)) return !page.current && page.feed.queue.length && page.next();
    if (!event.key || !event.key.startsWith(`al-out:${page.outbox.who}:`)) return;
    page.outboxChanged();
    const said = parse(event.newValue);
    if (said) this.saidElsewhere(said);
  }

  saidElsewhere({ impression, event, preference }) {
    const { page } = this;
    if (event === "retracted") {
      page.feed.answered.delete(impression);
      page.past.takenBack(impression);
      return;
    }
    const known = page.past.find(impression);
    if (known) known.preference = preference;
    page.feed.answered.add(impression);
    page.feed.drop(new Set([impression]));
    if (page.aside?.item.id === impression) page.aside = null;
    if (page.current?.item.id !== impression) return;
    if (page.current.changing) return page.again.leave("Changed in another tab");
    page.screen.say("Answered in another tab");
    page.next();
  }

  visibility() {
    const { page } = this;
    if (document.hidden) {
      this.hiddenAt = performance.now();
      page.outbox.flush();
      return;
    }
    page.hiddenMs += performance.now() - this.hiddenAt;
    page.outbox.hurry();
    page.feed.heartbeat();
    if (!page.current) page.feed.refill(true);
  }

  leave() {
    const { page } = this;
    page.outbox.beacon();
    page.feed.release();
    page.tabs.nothing();
  }

  // From the browser's back cache: the leases were given up, so what is here may be another's by now.
  comeBack() {
    const { page } = this;
    page.forget();
    page.screen.notices.waiting();
    page.feed.refill(true);
  }
}
