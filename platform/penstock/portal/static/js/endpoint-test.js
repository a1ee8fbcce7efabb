// The test console of an endpoint: one prompt, sent the way of every request, and what became of it.

const form = document.getElementById("test");
const answer = document.getElementById("answer");
const problem = document.getElementById("problem");
const told = document.getElementById("told");
const send = document.getElementById("send");
const stop = document.getElementById("stop");
const DASH = "–";
let running = null;

const fact = (name) => told.querySelector(`[data-${name}]`);
const ms = (from) => `${(performance.now() - from).toLocaleString("en", { maximumFractionDigits: 0 })} ms`;

function body() {
  const prompt = form.elements.prompt.value;
  if (form.dataset.task !== "chat") return { model: form.dataset.model, input: prompt };
  return {
    model: form.dataset.model,
    messages: [{ role: "user", content: prompt }],
    max_tokens: Number(form.elements.max_tokens.value) || 200,
    stream: true,
    stream_options: { include_usage: true },
  };
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.startsWith("data: ") ? part.slice(6) : "";
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

function refuse(text) {
  problem.textContent = text;
  problem.hidden = false;
}

function showUsage(usage) {
  if (!usage) return;
  const output = usage.completion_tokens ? `, ${usage.completion_tokens.toLocaleString("en")} out` : "";
  fact("tokens").textContent = `${usage.prompt_tokens.toLocaleString("en")} in${output}`;
}

async function readStream(response, began) {
  for await (const event of events(response.body)) {
    if (event.error) return refuse(event.error.message);
    const text = event.choices?.[0]?.delta?.content;
    if (text) {
      if (fact("first").textContent === DASH) fact("first").textContent = ms(began);
      answer.textContent += text;
    }
    showUsage(event.usage);
  }
}

function showVector(found) {
  const vector = found.data[0].embedding;
  const first = vector.slice(0, 8).map((value) => value.toFixed(5));
  answer.textContent = `${vector.length.toLocaleString("en")} numbers: ${first.join(", ")}${vector.length > 8 ? ", …" : ""}`;
  showUsage(found.usage);
}

// The cost is the ledger's own: it is there a moment after the answer.
async function showCost(id) {
  for (let tries = 0; tries < 20; tries++) {
    await new Promise((resume) => setTimeout(resume, 250));
    const response = await fetch(`/portal/playground/requests/${id}`);
    if (!response.ok) return;
    const found = await response.json();
    if (found.recorded) {
      fact("cost").textContent = found.cost;
      return;
    }
  }
}

function showRequest(id) {
  const link = document.createElement("a");
  link.href = `/portal/requests/${id}`;
  link.textContent = id;
  fact("request").replaceChildren(link);
}

async function ask() {
  const began = performance.now();
  const response = await fetch(form.dataset.url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body()),
    signal: running.signal,
  });
  told.hidden = false;
  const id = response.headers.get("x-request-id");
  if (!response.ok) {
    const found = await response.json().catch(() => ({}));
    told.hidden = true;
    return refuse(found.error?.message ?? `The answer was ${response.status}.`);
  }
  if (id) showRequest(id);
  if (form.dataset.task === "chat") await readStream(response, began);
  else showVector(await response.json());
  fact("whole").textContent = ms(began);
  if (id) showCost(id);
}

function begin() {
  running = new AbortController();
  answer.textContent = "";
  answer.classList.add("told");
  problem.hidden = told.hidden = true;
  for (const name of ["first", "whole", "tokens", "cost", "request"]) fact(name).textContent = DASH;
  send.disabled = true;
  stop.hidden = false;
}

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  begin();
  try {
    await ask();
  } catch (error) {
    if (error.name !== "AbortError") refuse("The connection was lost before the answer was whole.");
    else fact("whole").textContent = "stopped";
  } finally {
    send.disabled = false;
    stop.hidden = true;
  }
});
stop?.addEventListener("click", () => running?.abort());
