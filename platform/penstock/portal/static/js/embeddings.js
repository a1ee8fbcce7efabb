// The embeddings playground: several texts in, how alike each two of them are out.

import { Trouble, embedded, newClientId, recorded } from "./playground/calls.js";
import { duration } from "./playground/figures.js";

const facts = JSON.parse(document.getElementById("facts").textContent);
const byValue = new Map(facts.choices.map((choice) => [choice.value, choice]));
const $ = (id) => document.getElementById(id);
const LEAST = 2;
const MOST = 20;
const EXAMPLE = ["How do I reset my password?", "I forgot my login, what now?", "What does a token cost?", "The river floods in spring."];
let asked = 0;

function fields() {
  return [...document.querySelectorAll("#texts textarea")];
}

function add(text = "") {
  const node = $("t-text").content.firstElementChild.cloneNode(true);
  node.querySelector("textarea").value = text;
  node.querySelector("button").addEventListener("click", () => {
    node.remove();
    number();
  });
  $("texts").append(node);
  number();
  return node;
}

function number() {
  const all = fields();
  all.forEach((field, at) => {
    field.setAttribute("aria-label", `Text ${at + 1}`);
    const remove = field.nextElementSibling;
    remove.setAttribute("aria-label", `Remove text ${at + 1}`);
    remove.hidden = all.length <= LEAST;
  });
  $("add").hidden = all.length >= MOST;
}

function put(texts) {
  $("texts").replaceChildren();
  for (const text of texts) add(text);
  number();
}

function showModel() {
  const choice = byValue.get($("model").value);
  $("model-facts").textContent = `${choice.price || "No price yet, so it is not served"} · ${choice.context_length.toLocaleString("en")} context`;
  $("model-state").textContent = choice.state;
  $("model-state").className = `badge ${{ ready: "good", waking: "busy", asleep: "calm" }[choice.state] ?? ""}`;
}

function complain(words) {
  $("complaint").textContent = words;
  $("complaint").hidden = !words;
}

// The cosine of the angle between two vectors of any length; 0 where one of them is nothing.
function cosine(one, other) {
  let dot = 0;
  let lengths = [0, 0];
  for (let at = 0; at < one.length; at++) {
    dot += one[at] * other[at];
    lengths = [lengths[0] + one[at] ** 2, lengths[1] + other[at] ** 2];
  }
  const size = Math.sqrt(lengths[0] * lengths[1]);
  return size ? dot / size : 0;
}

function cell(tag, text, scope) {
  const node = document.createElement(tag);
  node.textContent = text;
  if (scope) node.scope = scope;
  return node;
}

function draw(texts, vectors) {
  const corner = cell("td", "");
  corner.className = "self";
  $("heads").replaceChildren(corner, ...texts.map((_, at) => cell("th", String(at + 1), "col")));
  let best = null;
  const rows = texts.map((text, row) => {
    const head = cell("th", text, "row");
    head.title = text;
    head.prepend(cell("span", String(row + 1)));
    const line = document.createElement("tr");
    line.append(head);
    texts.forEach((_, column) => {
      const value = row === column ? 1 : cosine(vectors[row], vectors[column]);
      const node = cell("td", value.toFixed(4));
      if (row === column) node.className = "self";
      // A script may set a property where an attribute in the page may not: nothing foreign gets here.
      else node.style.setProperty("--heat", Math.max(0, Math.min(1, value)).toFixed(3));
      line.append(node);
      if (row < column && (!best || value > best.value)) best = { value, row, column };
    });
    return line;
  });
  $("rows").replaceChildren(...rows);
  $("closest").textContent = best ? `Closest are ${best.row + 1} and ${best.column + 1}, at ${best.value.toFixed(4)}.` : "";
}

async function compare() {
  const texts = fields().map((field) => field.value.trim()).filter(Boolean);
  if (!facts.may_spend || $("compare").disabled) return;
  complain(texts.length < LEAST ? "Write at least two texts." : "");
  if (texts.length < LEAST) return;
  const choice = byValue.get($("model").value);
  const where = { project: $("project").value };
  if (choice.endpoint) where.endpoint = choice.endpoint;
  const turn = ++asked;
  const clientId = newClientId();
  const began = performance.now();
  $("compare").disabled = true;
  $("compare").textContent = "Compares…";
  $("trouble").hidden = true;
  try {
    const { answer, requestId } = await embedded(where, { model: choice.model, input: texts }, clientId);
    const vectors = answer.data.toSorted((one, other) => one.index - other.index).map((one) => one.embedding);
    choice.state = "ready";
    showModel();
    $("took").textContent = duration(performance.now() - began);
    $("start").hidden = true;
    $("answer").hidden = false;
    draw(texts, vectors);
    $("input").textContent = `${answer.usage.prompt_tokens.toLocaleString("en")} tokens`;
    $("dimensions").textContent = vectors[0].length.toLocaleString("en");
    showCost(requestId, turn);
  } catch (error) {
    trouble(error);
  } finally {
    $("compare").disabled = false;
    $("compare").textContent = "Compare";
  }
}

async function showCost(requestId, turn) {
  $("cost").textContent = "…";
  const told = await recorded(requestId).catch(() => null);
  if (turn !== asked) return;
  if (!told?.recorded) {
    $("cost").textContent = "not recorded yet";
    return;
  }
  const link = document.createElement("a");
  link.href = `/portal/requests/${encodeURIComponent(told.request_id)}`;
  link.textContent = told.cost;
  $("cost").replaceChildren(link);
}

function trouble(error) {
  if (!(error instanceof Trouble)) console.error(error);
  const told = error instanceof Trouble ? error : new Trouble("failed", "This page could not read the answer.");
  $("trouble").hidden = false;
  $("start").hidden = true;
  $("answer").hidden = true;
  $("trouble-words").textContent = told.message + (told.retryAfterS ? ` Try again in ${told.retryAfterS} s.` : "");
  $("sign-in").hidden = told.kind !== "ended";
  $("billing").hidden = told.status !== 402;
}

if (facts.choices.length) {
  put(["", "", ""]);
  const asks = new URLSearchParams(location.search);
  const wanted = asks.get("model") ?? (asks.has("endpoint") ? `@${asks.get("endpoint")}` : "");
  if (byValue.has(wanted)) $("model").value = wanted;
  showModel();
  $("model").addEventListener("change", showModel);
  $("add").addEventListener("click", () => add().querySelector("textarea").focus());
  $("example").addEventListener("click", () => put(EXAMPLE));
  $("again").addEventListener("click", compare);
  $("embed").addEventListener("submit", (event) => {
    event.preventDefault();
    compare();
  });
  $("embed").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) compare();
  });
}
