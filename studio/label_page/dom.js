// el("button", {class: "x", onclick: f}, "text", child): an element. Text is always text.
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const button = (attributes, ...children) => el("button", { type: "button", ...attributes }, ...children);

export const kbd = (keys) => el("span", { class: "al-keys", "aria-hidden": "true" }, ...keys.map((key) => el("kbd", {}, key)));

export const plural = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

// As soon as what is in the document now has been painted; on a page that is not on the screen, when it is again.
export function afterPaint(something) {
  requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = something;
    channel.port2.postMessage(0);
  });
}

const LONGEST_WAIT_MS = 200;

// When nothing more urgent is to be done, and soon in any case.
export function whenIdle(something) {
  if (window.requestIdleCallback) requestIdleCallback(() => something(), { timeout: LONGEST_WAIT_MS });
  else setTimeout(something); // Safari
}
