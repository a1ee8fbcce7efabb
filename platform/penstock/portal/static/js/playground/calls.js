// Asking the platform: a stream of an answer, a whole one, and what was recorded of either. What goes wrong is
// a Trouble, in words for people.

import { events } from "./events.js";

const BASE = "/portal/playground";
const JSON_TYPE = { "content-type": "application/json" };
// A record is shipped some 200 ms after an answer's end; later while the database is away.
const LOOKS_MS = [150, 150, 200, 300, 500, 800, 1200, 2000, 3000, 5000];

export class Trouble extends Error {
  // kind: "ended" (the session), "refused" (before anything was made), "failed" (in the middle), "lost" (the connection)
  constructor(kind, message, { status = 0, code = "", retryAfterS = 0 } = {}) {
    super(message);
    Object.assign(this, { kind, status, code, retryAfterS });
  }
}

function sentence(text) {
  const words = text.trim();
  return words.charAt(0).toUpperCase() + words.slice(1) + (/[.!?]$/.test(words) ? "" : ".");
}

async function refusal(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // Something between us answered in its own way: the status has to do.
  }
  if (response.status === 401 && error.code === "session_ended") {
    return new Trouble("ended", "Your session has ended. Everything you typed is still here.");
  }
  const words = error.message ?? `The platform answered ${response.status} and gave no reason`;
  const retryAfterS = Number(response.headers.get("retry-after")) || 0;
  return new Trouble("refused", sentence(words), { status: response.status, code: error.code, retryAfterS });
}

async function post(path, where, body, { signal, clientId, more = {} }) {
  let response;
  try {
    response = await fetch(`${BASE}${path}?${new URLSearchParams(where)}`, {
      method: "POST",
      headers: { ...JSON_TYPE, "x-client-request-id": clientId, ...more },
      body: JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Trouble("lost", "The platform cannot be reached: the connection is lost, or it is restarting.");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

// Yields {comment} while the request waits, then {chunk} after {chunk}; onHead is told the request's id.
export async function* streamed(where, body, { signal, clientId, onHead }) {
  const more = { "x-penstock-waiting": "comments" };
  const response = await post("/v1/chat/completions", where, body, { signal, clientId, more });
  onHead(response.headers.get("x-request-id"));
  try {
    for await (const event of events(response.body)) {
      if (event.comment !== undefined) yield event;
      else if (event.data === "[DONE]") return;
      else {
        const chunk = JSON.parse(event.data);
        if (chunk.error) {
          throw new Trouble("failed", sentence(chunk.error.message ?? "The answer broke off"), { code: chunk.error.code });
        }
        yield { chunk };
      }
    }
  } catch (error) {
    if (signal?.aborted || error instanceof Trouble) throw error;
    throw new Trouble("lost", "The connection was lost in the middle of the answer. What had been made by then counts.");
  }
  throw new Trouble("lost", "The answer broke off before its end. What had been made by then counts.");
}

export async function embedded(where, body, clientId) {
  const response = await post("/v1/embeddings", where, body, { clientId });
  return { answer: await response.json(), requestId: response.headers.get("x-request-id") };
}

// What the ledger has of a request, by its id or the client's: {recorded: false} when nothing came to be recorded,
// null when nobody could be asked.
export async function recorded(name) {
  let last = null;
  for (const wait of LOOKS_MS) {
    await new Promise((wake) => setTimeout(wake, wait));
    try {
      const response = await fetch(`${BASE}/requests/${encodeURIComponent(name)}`, { redirect: "manual" });
      if (response.type === "opaqueredirect") throw new Trouble("ended", "Your session has ended.");
      const told = response.ok ? await response.json() : { recorded: false };
      if (told.recorded) return told;
      last = response.ok ? told : null;
    } catch (error) {
      if (error instanceof Trouble) throw error;
      last = null; // the connection may come back
    }
  }
  return last;
}

export function newClientId() {
  // Not randomUUID: that is there on https and localhost only.
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return `playground-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
