// The answers while they are on the screen: scrolling together, the swipe between them on a phone, and how much of each has been seen.

const AHEAD = 2; // pixels: a rounded scroll position is still the end

export class Panes {
  // `node`: the item, on the screen. `bottom()`: where the vote bar begins, in pixels of the window. `together()`: whether to scroll both.
  constructor(node, bottom, together) {
    this.node = node;
    this.bottom = bottom;
    this.together = together;
    this.row = node.querySelector(".al-panes");
    this.texts = [...node.querySelectorAll(".al-scroll")];
    this.seen = this.texts.map(() => 0);
    this.set = new Map(); // text -> the scroll position that we gave it ourselves
    this.tabs = [...node.querySelectorAll(".al-which-one")];
    this.ends = new AbortController();
    const quiet = { passive: true, signal: this.ends.signal };
    for (const one of this.texts) one.addEventListener("scroll", () => this.scrolled(one), quiet);
    this.row.addEventListener("scroll", () => this.swiped(), quiet);
    window.addEventListener("scroll", () => this.look(), quiet);
    for (const [n, tab] of this.tabs.entries()) tab.addEventListener("click", () => this.turnTo(n), quiet);
  }

  close() {
    this.ends.abort();
  }

  // --- scrolling together ---

  scrolled(one) {
    const ours = this.set.get(one);
    this.set.delete(one);
    if (this.together() && (ours === undefined || Math.abs(ours - one.scrollTop) > AHEAD)) this.follow(one);
    this.look();
  }

  // The other answer goes to the same share of its own length.
  follow(one) {
    const range = (text) => text.scrollHeight - text.clientHeight;
    for (const other of this.texts) {
      if (other === one || range(other) <= 0 || range(one) <= 0) continue;
      const wanted = Math.round((one.scrollTop / range(one)) * range(other));
      if (Math.abs(wanted - other.scrollTop) <= AHEAD) continue;
      other.scrollTop = wanted;
      this.set.set(other, other.scrollTop);
    }
  }

  // --- one at a time, on a phone ---

  get width() {
    return this.row.firstElementChild.getBoundingClientRect().width || 1;
  }

  swiped() {
    const n = Math.round(this.row.scrollLeft / this.width);
    for (const [i, tab] of this.tabs.entries()) tab.setAttribute("aria-pressed", String(i === n));
    this.look();
  }

  turnTo(n) {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.row.scrollTo({ left: n * this.width, behavior: calm ? "instant" : "smooth" });
  }

  // --- what has been seen ---

  // Take note of what is on the screen now.
  look() {
    const bottom = Math.min(innerHeight, this.bottom());
    const row = this.row.getBoundingClientRect();
    for (const [i, one] of this.texts.entries()) {
      const box = one.getBoundingClientRect();
      const across = Math.min(box.right, row.right) - Math.max(box.left, row.left);
      if (across < box.width / 2 || one.scrollHeight <= 0) continue;
      const reached = Math.min(box.bottom, bottom) - box.top + one.scrollTop + AHEAD;
      this.seen[i] = Math.max(this.seen[i], Math.min(1, reached / one.scrollHeight));
    }
  }

  // The smallest share over the answers of the text that has been on the screen.
  share() {
    this.look();
    return Math.max(0, Math.round(Math.min(...this.seen) * 1000) / 1000);
  }

  get places() {
    return [this.row.scrollLeft, ...this.texts.map((one) => one.scrollTop)];
  }

  // Back to where it was left (an element that leaves the document forgets its scroll position).
  restore([across, ...down]) {
    this.row.scrollLeft = across;
    for (const [i, top] of down.entries()) this.texts[i].scrollTop = top;
  }
}
