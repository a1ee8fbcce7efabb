// The setting: what is in the form, what is wrong with it, and how it stands in a link. A link bears no
// conversation and no secret, and stands behind the `#`, so that no server sees it.

const NUMBERS = {
  temperature: { least: 0, most: 2, words: "0 to 2" },
  top_p: { least: 0.000001, most: 1, words: "above 0, at most 1" },
  max_tokens: { least: 1, most: 1e9, whole: true, words: "a whole number of 1 or more" },
  seed: { least: -9007199254740991, most: 9007199254740991, whole: true, words: "a whole number" },
};
const TEXTS = ["system", "stop", "tools", "schema"];
const TOOL_NAME = /^[a-zA-Z0-9_-]{1,64}$/;
export const SHARED = [...Object.keys(NUMBERS), ...TEXTS, "project"];

function parsed(text, errors, name) {
  try {
    return JSON.parse(text);
  } catch (error) {
    errors[name] = `This is not JSON: ${error.message}.`;
    return null;
  }
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function toolsProblem(tools) {
  if (!Array.isArray(tools) || !tools.length) return "Tools are a list: [{\"type\": \"function\", \"function\": {…}}].";
  for (const [at, tool] of tools.entries()) {
    const which = `Tool ${at + 1}`;
    if (!isObject(tool) || tool.type !== "function" || !isObject(tool.function)) {
      return `${which} needs "type": "function" and an object "function".`;
    }
    if (!TOOL_NAME.test(tool.function.name ?? "")) {
      return `${which} needs a name of 1 to 64 letters, digits, "_" and "-".`;
    }
    if (tool.function.parameters !== undefined && !isObject(tool.function.parameters)) {
      return `${which}: "parameters" is a JSON Schema, which is an object.`;
    }
  }
  return "";
}

// {values, errors}: the values as a request has them; errors is a sentence for each field that is wrong.
export function read(form) {
  const typed = Object.fromEntries(new FormData(form));
  const errors = {};
  const values = { system: typed.system.trim(), project: typed.project };
  for (const [name, rule] of Object.entries(NUMBERS)) {
    // A browser keeps what is no number from us; it tells that there is something.
    if (form.elements[name].validity.badInput) errors[name] = `Accepted is ${rule.words}.`;
    if (!typed[name]) continue;
    const number = Number(typed[name]);
    const fits = number >= rule.least && number <= rule.most && (!rule.whole || Number.isSafeInteger(number));
    if (fits) values[name] = number;
    else errors[name] = `Accepted is ${rule.words}.`;
  }
  const stop = typed.stop.split(/\r?\n/).filter((line) => line !== "");
  if (stop.length) values.stop = stop.map((line) => line.replace(/\\n/g, "\n").replace(/\\t/g, "\t"));
  if (typed.tools.trim()) {
    const tools = parsed(typed.tools, errors, "tools");
    const problem = errors.tools ? "" : toolsProblem(tools);
    if (problem) errors.tools = problem;
    else if (!errors.tools) values.tools = tools;
  }
  if (typed.schema.trim()) {
    const schema = parsed(typed.schema, errors, "schema");
    if (!errors.schema && !isObject(schema)) errors.schema = "A JSON Schema is an object: {\"type\": \"object\", …}.";
    else if (!errors.schema) values.schema = schema;
  }
  return { values, errors };
}

export function showErrors(form, errors) {
  for (const field of form.querySelectorAll("[data-field]")) {
    const words = errors[field.dataset.field] ?? "";
    const told = field.querySelector(".error");
    const input = field.querySelector("input, textarea, select");
    told.textContent = words;
    told.hidden = !words;
    field.classList.toggle("wrong", Boolean(words));
    if (words) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  }
}

// The setting as it stands behind the `#`.
export function written(form, models) {
  const told = new URLSearchParams();
  for (const model of models) told.append("model", model);
  for (const name of SHARED) {
    const value = form.elements[name].value;
    const usual = name === "project" ? form.elements.project.dataset.usual : "";
    if (value !== usual) told.append(name, value);
  }
  return told.toString();
}

// Takes over what an address says. Gives the models that it names; and the project when nobody here has it.
export function take(form, address) {
  const told = new URLSearchParams(address.hash.slice(1));
  const asked = new URLSearchParams(address.search);
  for (const name of SHARED) {
    const value = told.get(name) ?? asked.get(name);
    if (value === null) continue;
    if (name === "project" && ![...form.elements.project.options].some((option) => option.value === value)) {
      return { models: named(told, asked), missing: value };
    }
    form.elements[name].value = value;
  }
  return { models: named(told, asked), missing: "" };
}

function named(told, asked) {
  if (told.has("model")) return told.getAll("model");
  const endpoints = asked.getAll("endpoint").map((name) => `@${name}`);
  return [...asked.getAll("model"), ...endpoints];
}

// The body of a request. What a model's card has not is not asked of it: the page says so.
export function body(values, choice, messages) {
  const asked = { model: choice.model, messages };
  for (const name of ["temperature", "top_p", "max_tokens", "seed", "stop"]) {
    if (values[name] !== undefined) asked[name] = values[name];
  }
  if (values.tools && choice.tools) asked.tools = values.tools;
  if (values.schema && choice.structured_output) {
    asked.response_format = { type: "json_schema", json_schema: { name: "answer", schema: values.schema } };
  }
  return asked;
}
