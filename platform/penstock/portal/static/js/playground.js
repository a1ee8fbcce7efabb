// The playground's page: which models, the setting, the message being written, and what the keys do.

import { Conversation } from "./playground/conversation.js";
import { bytes, dollars } from "./playground/figures.js";
import { Images } from "./playground/images.js";
import { samples } from "./playground/samples.js";
import * as settings from "./playground/setting.js";

const facts = JSON.parse(document.getElementById("facts").textContent);
const byValue = new Map(facts.choices.map((choice) => [choice.value, choice]));
const $ = (id) => document.getElementById(id);
const form = $("setting");
const composer = $("composer");
const prompt = $("prompt");
const selects = [$("model-0"), $("model-1")];
const drawer = $("settings");
const narrow = matchMedia("(max-width: 60rem)");
const NEAR_END_PX = 120;
const DRAFT = "penstock-playground-draft";

const images = new Images($("images"), facts.image_bytes_max, { refuse: complain, changed: ready });
const conversation = new Conversation($("turns"), { setting, changed, settled, edited: () => prompt.focus() });

// Models

function sides() {
  return selects.filter((select, at) => at === 0 || !$("side-1").hidden).map((select) => byValue.get(select.value));
}

function compare(on) {
  $("side-1").hidden = !on;
  $("compare").hidden = on;
  document.querySelector(".playground").classList.toggle("comparing", on);
  showModels();
}

function showModels() {
  for (const [at, select] of selects.entries()) {
    const choice = byValue.get(select.value);
    if (!choice) continue;
    $(`model-${at}-facts`).textContent = `${choice.price || "No price yet, so it is not served"} · ${choice.context_length.toLocaleString("en")} context`;
    const state = $(`model-${at}-state`);
    state.textContent = choice.state;
    state.className = `badge ${{ ready: "good", waking: "busy", draining: "busy", asleep: "calm" }[choice.state] ?? ""}`;
  }
  const chosen = sides();
  without("tools", chosen.filter((choice) => !choice.tools), "calls no tools, so they are not sent to it");
  without("schema", chosen.filter((choice) => !choice.structured_output), "keeps to no schema, so it is not sent to it");
  remember();
}

function without(name, choices, words) {
  $(`${name}-without`).textContent = choices.map((choice) => `${choice.label} ${words}.`).join(" ");
  $(`${name}-without`).hidden = !choices.length;
}

// The setting

function setting() {
  const { values, errors } = settings.read(form);
  settings.showErrors(form, errors);
  const first = Object.keys(errors)[0];
  if (!first) return { values, sides: sides() };
  const field = form.elements[first];
  field.closest("details")?.setAttribute("open", "");
  if (narrow.matches) drawer.showPopover();
  field.focus();
  complain("Something in the settings cannot be taken: see beside the field.");
  return null;
}

function remember() {
  const models = sides().map((choice) => choice.value);
  history.replaceState(null, "", `${location.pathname}#${settings.written(form, models)}`);
}

function restore() {
  const { models, missing } = settings.take(form, location);
  const known = models.filter((value) => byValue.has(value));
  known.slice(0, 2).forEach((value, at) => (selects[at].value = value));
  const unknown = models.filter((value) => !byValue.has(value));
  if (unknown.length) complain(`The link names ${unknown.join(" and ")}, which cannot be called here.`);
  if (missing) complain(`The link names the project ${missing}, which is not one of this organisation.`);
  for (const name of ["tools", "schema"]) if (form.elements[name].value) $(`${name}-part`).open = true;
  compare(known.length > 1);
}

// The message being written

function complain(words) {
  $("complaint").textContent = words;
  $("complaint").hidden = !words;
}

function ready() {
  const { running } = conversation;
  const had = document.activeElement;
  $("send").hidden = running;
  $("stop").hidden = !running;
  // Whoever pressed one of them by its key is not left without a place.
  if (had === $("send") && running) $("stop").focus();
  if (had === $("stop") && !running) prompt.focus();
  $("send").disabled = !facts.may_spend || !(prompt.value.trim() || images.list.length);
}

function blind() {
  return sides().filter((choice) => !choice.vision);
}

function addImages(files) {
  complain("");
  const choices = blind();
  if (!files.length) return;
  if (choices.length) complain(`${choices.map((choice) => choice.label).join(" and ")} reads text only: choose a model whose card has vision.`);
  else images.add(files);
}

function send() {
  if (!facts.may_spend || conversation.running) return;
  const text = prompt.value.trim();
  if (!text && !images.list.length) return;
  complain("");
  if (images.list.length && blind().length) {
    addImages([...images.list]);
    return;
  }
  const with_ = [...images.list];
  if (!conversation.send(text, with_)) return;
  $("cleared").hidden = true;
  images.take();
  prompt.value = "";
  keepDraft();
  following = true;
  changed();
}

// What was being written outlives a reload and a sign-in, in this tab only.
function keepDraft() {
  try {
    sessionStorage.setItem(DRAFT, prompt.value);
  } catch {
    // A browser that keeps nothing for pages.
  }
}

// The conversation

let following = true;
let wasRunning = false;

function changed() {
  $("start").hidden = conversation.turns.length > 0;
  $("clear").hidden = !conversation.turns.length;
  ready();
  if (wasRunning && !conversation.running) {
    const said = conversation.turns.at(-1)?.sides.map((side) => side.answers.at(-1)).filter(Boolean) ?? [];
    $("said").textContent = said.map((answer) => `The answer of ${answer.choice.label}: ${answer.state}.`).join(" ");
  }
  wasRunning = conversation.running;
  follow();
}

// Keeps the end in sight for whoever has not scrolled away from it.
function follow() {
  if (following && conversation.turns.length) scrollTo({ top: document.documentElement.scrollHeight });
}

function settled(answer) {
  // What answered is awake, whatever it was when the page was loaded.
  const awake = answer.state === "done" && answer.choice.state !== "ready";
  if (awake) {
    answer.choice.state = "ready";
    showModels();
  }
  showTotal();
  follow();
}

function showTotal() {
  const costs = conversation.answers().map((answer) => answer.costNanoUsd).filter((cost) => cost !== null);
  $("total").textContent = costs.length > 1 ? `${costs.length} answers, ${dollars(costs.reduce((sum, cost) => sum + cost, 0))}` : "";
}

function showCode() {
  const { values, errors } = settings.read(form);
  settings.showErrors(form, errors);
  const choice = sides()[0];
  const text = prompt.value.trim();
  const draft = { text: text || "Hello", images: images.list, sides: [] };
  const turn = text ? draft : (conversation.turns.at(-1) ?? draft);
  const messages = conversation.messages(turn, 0, values.system);
  const asked = messages.slice(0, messages.findLastIndex((message) => message.role === "user") + 1);
  const told = samples(choice, settings.body(values, choice, asked));
  for (const [name, program] of Object.entries(told)) $(`code-${name}`).querySelector("code").textContent = program;
  $("code").showModal();
}

// What the page listens to

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
prompt.addEventListener("input", () => {
  ready();
  keepDraft();
});
prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send();
  }
});
prompt.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (!files.length) return;
  event.preventDefault();
  addImages(files);
});
composer.addEventListener("dragover", (event) => event.preventDefault());
composer.addEventListener("drop", (event) => {
  event.preventDefault();
  addImages([...event.dataTransfer.files]);
});
$("attach").title = `Add images: PNG, JPEG, WebP or GIF, together at most ${bytes(facts.image_bytes_max)}`;
$("attach").addEventListener("click", () => (blind().length ? addImages([null]) : $("files").click()));
$("files").addEventListener("change", () => {
  addImages([...$("files").files]);
  $("files").value = "";
});
$("stop").addEventListener("click", () => {
  conversation.stop();
  prompt.focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && conversation.running && !document.querySelector("dialog[open], :popover-open")) conversation.stop();
});
$("compare").addEventListener("click", () => {
  // Another one than the first, where there is one: to compare a model with itself is possible, too.
  const other = facts.choices.find((choice) => choice.value !== selects[0].value);
  selects[1].value = (other ?? facts.choices[0]).value;
  compare(true);
  selects[1].focus();
});
$("compare-no-more").addEventListener("click", () => {
  compare(false);
  $("compare").focus();
});
for (const select of selects) select.addEventListener("change", showModels);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("change", () => {
  settings.showErrors(form, settings.read(form).errors);
  remember();
});
for (const button of document.querySelectorAll("[data-example]")) {
  button.addEventListener("click", () => {
    const field = form.elements[button.dataset.example];
    field.value = $(`example-${button.dataset.example}`).content.textContent.trim();
    field.dispatchEvent(new Event("change", { bubbles: true }));
  });
}
for (const button of document.querySelectorAll("[data-say]")) {
  button.addEventListener("click", () => {
    prompt.value = button.textContent.trim();
    send();
  });
}
$("share").addEventListener("click", () => {
  remember();
  $("share").dataset.copy = location.href;
});
let cleared = [];
$("clear").addEventListener("click", () => {
  cleared = conversation.clear();
  $("cleared").hidden = false;
  showTotal();
  complain("");
  $("undo").focus();
});
$("undo").addEventListener("click", () => {
  conversation.put(cleared);
  $("cleared").hidden = true;
  showTotal();
  prompt.focus();
});
$("show-code").addEventListener("click", showCode);
for (const tab of document.querySelectorAll("[data-tab]")) {
  tab.addEventListener("click", () => {
    for (const each of document.querySelectorAll("[data-tab]")) {
      const chosen = each === tab;
      each.setAttribute("aria-pressed", String(chosen));
      $(each.dataset.tab).hidden = !chosen;
    }
  });
}
addEventListener("scroll", () => {
  following = innerHeight + scrollY > document.documentElement.scrollHeight - NEAR_END_PX;
}, { passive: true });
addEventListener("hashchange", () => {
  form.reset();
  restore();
});

if (facts.choices.length) {
  restore();
  try {
    prompt.value ||= sessionStorage.getItem(DRAFT) ?? "";
  } catch {
    // As above.
  }
  ready();
  if (!narrow.matches && facts.may_spend) prompt.focus({ preventScroll: true });
}
