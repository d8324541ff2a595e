// Which keys do what. They are dead while somebody types, while a key is held down, with Ctrl, Alt or Cmd, during text composition, and
// when the page says so (nothing painted yet, a dialog open).

export const CHOICES = {
  pairwise: [
    { action: "a", label: "A is better", short: "A", keys: ["1", "a", "ArrowLeft"], shown: ["1", "←"] },
    { action: "tie", label: "Tie", short: "Tie", keys: ["3", "t"], shown: ["3"] },
    { action: "both_bad", label: "Both bad", short: "Both bad", keys: ["4", "x"], shown: ["4"] },
    { action: "b", label: "B is better", short: "B", keys: ["2", "b", "ArrowRight"], shown: ["2", "→"] },
  ],
  binary: [
    { action: "good", label: "Good", short: "Good", keys: ["j", "1"], shown: ["J"] },
    { action: "bad", label: "Bad", short: "Bad", keys: ["k", "2"], shown: ["K"] },
  ],
};

export const OTHERS = [
  { action: "skip", label: "Skip", short: "Skipped", keys: ["s"], shown: ["S"] },
  { action: "undo", label: "Undo", short: "Undo", keys: ["u", "Backspace"], shown: ["U"] },
];

export const PAGE_KEYS = [
  { action: "raw", label: "As written or rendered", keys: ["r"], shown: ["R"] },
  { action: "help", label: "This help", keys: ["?"], shown: ["?"] },
];

export const nameOf = (task, preference) =>
  [...CHOICES[task], ...OTHERS].find((choice) => choice.action === preference)?.label || preference;

export const ariaKeys = (choice) => choice.keys.map((key) => (key.length === 1 ? key.toUpperCase() : key)).join(" ");

export const inWords = (key) => ({ ArrowLeft: "←", ArrowRight: "→", Backspace: "Backspace" })[key] || key.toUpperCase();

function typing(target) {
  if (!target || !target.tagName) return false;
  return /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) || target.isContentEditable;
}

// `onKey(action)` is told; `task()` says which choices there are; `dead()` says when no key counts.
export function listen(root, task, dead, onKey) {
  const handler = (event) => {
    if (event.repeat || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.defaultPrevented || typing(event.target) || root.offsetParent === null || dead()) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const choices = [...(CHOICES[task()] || []), ...OTHERS, ...PAGE_KEYS];
    const choice = choices.find((one) => one.keys.includes(key));
    if (!choice) return;
    event.preventDefault();
    onKey(choice.action);
  };
  document.addEventListener("keydown", handler);
  return () => document.removeEventListener("keydown", handler);
}
