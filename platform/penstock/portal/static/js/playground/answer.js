// One answer: it streams, it can be stopped, and it ends with its figures, its cost as the ledger has it, or
// with what went wrong.

import { Trouble, newClientId, recorded, streamed } from "./calls.js";
import { duration, speed } from "./figures.js";
import { Text, codeBlock } from "./text.js";

const TICK_MS = 100;
const WAITED = /^waited \d+ s; the model is (.*)$/;

function waitWords(comment) {
  const standing = WAITED.exec(comment)?.[1] ?? "";
  if (standing === "ready") return "Waits for its turn";
  if (standing === "asleep") return "The model was asleep and is being woken";
  const usually = /usually (\d+ s)/.exec(standing)?.[1];
  if (standing.startsWith("waking") || standing === "starting") return usually ? `The model is waking, usually ${usually}` : "The model is waking";
  return standing ? `The model is ${standing}` : "Waits";
}

export class Answer {
  // `told`: {retry(answer), results(answer, texts), changed(answer), settled(answer)}
  constructor(choice, told) {
    this.choice = choice;
    this.told = told;
    this.content = "";
    this.reasoning = "";
    this.calls = [];
    this.results = null;
    this.state = "waiting"; // then writing, then done, stopped or failed
    this.finish = "";
    this.usage = null;
    this.costNanoUsd = null;
    this.element = document.getElementById("t-answer").content.firstElementChild.cloneNode(true);
    this.part("who").textContent = choice.label;
    this.text = new Text(this.part("text"));
    this.thought = new Text(this.part("thought"));
    this.part("retry").addEventListener("click", () => told.retry(this));
    this.part("again").addEventListener("click", () => told.retry(this));
    this.part("copy").addEventListener("click", () => (this.part("copy").dataset.copy = this.content));
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      this.sendResults();
    });
  }

  part(name) {
    return this.element.querySelector(`[data-part="${name}"]`);
  }

  get usable() {
    return this.state !== "failed" && Boolean(this.content || (this.calls.length && this.results));
  }

  get running() {
    return this.state === "waiting" || this.state === "writing";
  }

  // What the model is to remember of it.
  messages() {
    const calls = this.results ? this.calls : [];
    const said = { role: "assistant", content: this.content || (calls.length ? null : "") };
    if (calls.length) said.tool_calls = calls.map(({ id, name, text }) => ({ id, type: "function", function: { name, arguments: text } }));
    return [said, ...calls.map(({ id }, at) => ({ role: "tool", tool_call_id: id, content: this.results[at] }))];
  }

  stop() {
    this.controller?.abort();
  }

  // Never throws: what goes wrong is shown beside the answer.
  async run(where, body) {
    this.controller = new AbortController();
    this.clientId = newClientId();
    this.requestId = null;
    this.startedAt = performance.now();
    this.firstAt = this.lastAt = 0;
    this.waits = "Waits for the first token";
    this.structured = Boolean(body.response_format);
    const tick = setInterval(() => this.showProgress(), TICK_MS);
    this.showProgress();
    try {
      const { signal } = this.controller;
      const asked = { ...body, stream: true, stream_options: { include_usage: true, continuous_usage_stats: true } };
      const stream = streamed(where, asked, { signal, clientId: this.clientId, onHead: (id) => (this.requestId = id) });
      for await (const { comment, chunk } of stream) {
        if (chunk) this.take(chunk);
        else this.waits = waitWords(comment);
      }
      this.state = "done";
    } catch (error) {
      this.state = this.controller.signal.aborted ? "stopped" : "failed";
      if (this.state === "failed") this.showTrouble(error);
    } finally {
      clearInterval(tick);
    }
    this.showEnd();
    this.told.changed(this);
    if (!(this.trouble && this.trouble.kind === "refused") && this.trouble?.kind !== "ended") await this.showCost();
  }

  take(chunk) {
    if (chunk.usage) this.usage = chunk.usage;
    const choice = chunk.choices?.[0];
    if (!choice) return;
    const delta = choice.delta ?? {};
    const thought = delta.reasoning ?? delta.reasoning_content ?? "";
    if (delta.content || thought || delta.tool_calls) {
      this.lastAt = performance.now();
      this.firstAt ||= this.lastAt;
      this.state = "writing";
    }
    this.content += delta.content ?? "";
    this.reasoning += thought;
    for (const piece of delta.tool_calls ?? []) {
      const call = (this.calls[piece.index ?? 0] ??= { id: "", name: "", text: "" });
      call.id ||= piece.id ?? "";
      call.name += piece.function?.name ?? "";
      call.text += piece.function?.arguments ?? "";
    }
    if (choice.finish_reason) this.finish = choice.finish_reason;
    if (!this.drawing) {
      this.drawing = requestAnimationFrame(() => {
        this.drawing = 0;
        this.draw();
      });
    }
  }

  draw() {
    this.text.show(this.content);
    this.part("reasoning").hidden = !this.reasoning;
    if (this.reasoning) this.thought.show(this.reasoning);
    this.told.changed(this);
  }

  showProgress() {
    const elapsed = performance.now() - this.startedAt;
    const thinks = this.state === "writing" && this.reasoning && !this.content;
    this.part("waiting").hidden = this.state !== "waiting" && !thinks;
    this.part("wait-words").textContent = thinks ? "Reasons before it answers" : this.waits;
    this.part("wait-time").textContent = duration(elapsed);
    if (this.state !== "waiting") this.showFigures(this.firstAt - this.startedAt, this.lastAt - this.firstAt, this.usage?.prompt_tokens, this.usage?.completion_tokens);
  }

  showFigures(firstMs, writingMs, input, output, cached = 0, reasoning = 0) {
    this.part("figures").hidden = false;
    this.figure("input", input === undefined ? "" : `${input.toLocaleString("en")}${cached ? ` (${cached.toLocaleString("en")} cached)` : ""}`);
    this.figure("output", output === undefined ? "" : `${output.toLocaleString("en")}${reasoning ? ` (${reasoning.toLocaleString("en")} reasoning)` : ""}`);
    this.figure("first", firstMs > 0 ? duration(firstMs) : "");
    this.figure("speed", speed(output ?? 0, writingMs));
  }

  figure(name, words) {
    this.part(name).textContent = words || "–";
  }

  showEnd() {
    cancelAnimationFrame(this.drawing);
    this.drawing = 0;
    this.draw();
    this.element.setAttribute("aria-busy", "false");
    this.element.dataset.state = this.state;
    this.part("tools").hidden = false;
    if (this.firstAt) this.showProgress();
    this.part("waiting").hidden = true;
    this.showCalls();
    const cut = this.finish === "length" ? "cut off at the limit of tokens" : "";
    const words = { stopped: "stopped", failed: "failed" }[this.state] ?? (cut || this.showStructure());
    this.part("state").textContent = words;
    this.part("state").hidden = !words;
    this.part("state").className = `badge ${this.state === "failed" ? "bad" : "warn"}`;
    this.part("copy").hidden = !this.content;
    this.part("nothing").hidden = this.state !== "done" || Boolean(this.content || this.calls.length);
  }

  // JSON that was asked for is laid out to be read; says so where it is none.
  showStructure() {
    if (!this.structured || !this.content) return "";
    try {
      this.part("text").replaceChildren(codeBlock(JSON.stringify(JSON.parse(this.content), null, 2), "json"));
      return "";
    } catch {
      return "no JSON";
    }
  }

  showTrouble(error) {
    this.trouble = error instanceof Trouble ? error : new Trouble("failed", "This page could not read the answer. Its cost is what was made.");
    if (!(error instanceof Trouble)) console.error(error);
    const { kind, message, status, retryAfterS } = this.trouble;
    this.part("trouble").hidden = false;
    this.part("trouble-words").textContent = message + (retryAfterS ? ` Try again in ${retryAfterS} s.` : "");
    this.part("sign-in").hidden = kind !== "ended";
    this.part("billing").hidden = status !== 402;
  }

  showCalls() {
    const place = this.part("calls");
    place.replaceChildren();
    this.part("results").hidden = !this.calls.length || this.state !== "done";
    for (const [at, { name, text }] of this.calls.entries()) {
      const node = document.getElementById("t-call").content.firstElementChild.cloneNode(true);
      for (const place of node.querySelectorAll(".name")) place.textContent = name;
      let shown = text;
      try {
        shown = JSON.stringify(JSON.parse(text), null, 2);
      } catch {
        // As it came: models do not always write JSON.
      }
      node.querySelector(".arguments").replaceWith(codeBlock(shown, "arguments"));
      node.querySelector("textarea").dataset.at = at;
      place.append(node);
    }
  }

  sendResults() {
    const fields = [...this.element.querySelectorAll(".call textarea")];
    this.results = fields.map((field) => field.value);
    for (const field of fields) field.readOnly = true;
    this.part("send-results").hidden = true;
    this.told.results(this);
  }

  // The record is found by our id; where no head came, by the name that we gave the request.
  async showCost() {
    const cost = this.part("cost");
    this.part("figures").hidden = false;
    cost.textContent = "…";
    let told = null;
    try {
      told = await recorded(this.requestId ?? this.clientId);
    } catch {
      cost.textContent = "sign in to see it";
      return;
    }
    if (told?.recorded === false && !this.requestId) {
      cost.textContent = "nothing: it was left before an engine took it";
      return;
    }
    if (!told?.recorded) {
      const again = document.createElement("button");
      again.type = "button";
      again.className = "link";
      again.textContent = "not recorded yet, look again";
      again.addEventListener("click", () => this.showCost());
      cost.replaceChildren(again);
      return;
    }
    this.costNanoUsd = told.cost_nano_usd;
    const link = document.createElement("a");
    link.href = `/portal/requests/${encodeURIComponent(told.request_id)}`;
    link.textContent = told.cost;
    link.title = `${told.meaning}: see where its time went and how its cost comes about`;
    cost.replaceChildren(link);
    this.showFigures(
      told.first_token_us / 1000,
      (told.duration_us - told.first_token_us) / 1000,
      told.input_tokens,
      told.output_tokens,
      told.cached_tokens,
      told.reasoning_tokens,
    );
    this.told.settled(this);
  }
}
