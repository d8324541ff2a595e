// Which words of two texts differ. The shortest edit script by Myers' greedy algorithm (1986), over words, given up when it grows beyond
// MAX_EDITS: texts that differ so much are not near-identical, and 50,000 characters must not hold up the page.

const MAX_EDITS = 600; // words put in or taken out
const MAX_WORDS = 60_000; // of one text, spaces and signs included
const LEAST_WORDS = 12; // of the shorter text: in less one sees the difference without help
export const NEAR = 0.75; // share of the words that two near-identical texts have in common
// A word; or one character of a script that puts no spaces between its words; or spaces; or a sign.
const WORD = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]|[\p{L}\p{M}\p{N}_]+|\s+|./gsu;
const SPACE = /^\s/;

// {left, right, same}: runs [{text, marked}] of each side that together are its text, when the texts are near-identical; else null.
// `same`: only spaces and line breaks differ.
export function compare(left, right) {
  const [a, b] = [split(left), split(right)];
  if (!a || !b || Math.min(a.words.length, b.words.length) < LEAST_WORDS) return null;
  const all = a.words.length + b.words.length;
  const mostEdits = Math.min(MAX_EDITS, Math.floor(all * (1 - NEAR)));
  if (Math.abs(a.words.length - b.words.length) > mostEdits || all - 2 * shared(a.words, b.words) > mostEdits) return null;
  const kept = common(a.words, b.words, mostEdits);
  if (!kept) return null;
  return { left: runs(a, kept.left), right: runs(b, kept.right), same: kept.edits === 0 };
}

function split(text) {
  const parts = text.match(WORD) || [];
  if (parts.length > MAX_WORDS) return null;
  return { parts, words: parts.filter((part) => !SPACE.test(part)) };
}

// How many words the two have in common in any order: no edit script can keep more.
function shared(a, b) {
  const counts = new Map();
  for (const word of a) counts.set(word, (counts.get(word) || 0) + 1);
  let n = 0;
  for (const word of b) {
    const left = counts.get(word) || 0;
    if (left) counts.set(word, left - 1);
    n += left ? 1 : 0;
  }
  return n;
}

// Which words of each side stay in a longest common subsequence; null beyond `most` edits.
export function common(a, b, most) {
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let [endA, endB] = [a.length, b.length];
  while (endA > start && endB > start && a[endA - 1] === b[endB - 1]) [endA, endB] = [endA - 1, endB - 1];
  const left = new Uint8Array(a.length).fill(1, 0, start).fill(1, endA);
  const right = new Uint8Array(b.length).fill(1, 0, start).fill(1, endB);
  const trace = search(a, b, start, endA, endB, most);
  if (!trace) return null;
  let [x, y] = [endA - start, endB - start];
  for (let d = trace.length - 1; d >= 0; d--) {
    const before = d ? trace[d - 1] : null;
    const k = x - y;
    const down = before && (k === -d || (k !== d && at(before, d - 1, k - 1) < at(before, d - 1, k + 1)));
    const fromX = !before ? 0 : down ? at(before, d - 1, k + 1) : at(before, d - 1, k - 1);
    const stepX = !before ? 0 : down ? fromX : fromX + 1;
    for (; x > stepX && y > 0; x--, y--) left[start + x - 1] = right[start + y - 1] = 1;
    if (before) [x, y] = [fromX, fromX - (down ? k + 1 : k - 1)];
  }
  return { left, right, edits: trace.length - 1 };
}

const at = (row, d, k) => row[k + d]; // row d holds the diagonals -d..d

// For each number of edits, how far each diagonal reaches, up to the number that reaches the end; null when it is more than `most`.
function search(a, b, start, endA, endB, most) {
  const [n, m] = [endA - start, endB - start];
  const trace = [];
  for (let d = 0; d <= most; d++) {
    const row = new Int32Array(2 * d + 1);
    for (let k = -d; k <= d; k += 2) {
      let x = 0;
      if (d) {
        const before = trace[d - 1];
        const down = k === -d || (k !== d && at(before, d - 1, k - 1) < at(before, d - 1, k + 1));
        x = down ? at(before, d - 1, k + 1) : at(before, d - 1, k - 1) + 1;
      }
      while (x < n && x - k < m && a[start + x] === b[start + x - k]) x += 1;
      row[k + d] = x;
      if (x >= n && x - k >= m) {
        trace.push(row);
        return trace;
      }
    }
    trace.push(row);
  }
  return null;
}

// The text's parts as runs; spaces between two marked words are marked with them.
function runs({ parts }, kept) {
  const marks = [];
  let word = 0;
  for (const part of parts) marks.push(SPACE.test(part) ? null : !kept[word++]);
  const found = [];
  for (const [i, part] of parts.entries()) {
    const marked = marks[i] ?? Boolean(marks[i - 1] && marks[i + 1]);
    const last = found[found.length - 1];
    if (last && last.marked === marked) last.text += part;
    else found.push({ text: part, marked });
  }
  return found;
}
