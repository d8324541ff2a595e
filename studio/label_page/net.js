// Requests to our own routes. What goes wrong becomes an Error whose message is the sentence to show; `status` 0 = not reached at all.

const TIMEOUT_MS = 20_000;

export class Trouble extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function ask(url, options) {
  let response;
  try {
    response = await fetch(url, { credentials: "same-origin", cache: "no-store", ...options });
  } catch (error) {
    throw new Trouble("The server cannot be reached. This page tries again by itself.", 0);
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Trouble(body.error || "The server has a problem. This page tries again by itself.", response.status);
  return body;
}

export const get = (url) => ask(url, {});

const asJson = (body) => ({ method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

export const post = (url, body) =>
  ask(url, { ...asJson(body), signal: AbortSignal.timeout ? AbortSignal.timeout(TIMEOUT_MS) : undefined });

// Outlives its page; nobody waits for the answer.
export function keepalive(url, body) {
  fetch(url, { ...asJson(body), credentials: "same-origin", keepalive: true }).catch(() => {});
}
