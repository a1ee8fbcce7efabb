// The same request as a program's text: curl, Python, TypeScript.

const SHORT = 60;

// Images are long: what stands for one says that it is one.
function shortened(key, value) {
  return key === "url" && typeof value === "string" && value.length > SHORT ? `${value.slice(0, value.indexOf(",") + 1)}…` : value;
}

function json(value, indent) {
  return JSON.stringify(value, shortened, 2).replaceAll("\n", `\n${" ".repeat(indent)}`);
}

function python(value, indent) {
  const inner = " ".repeat(indent + 4);
  const outer = " ".repeat(indent);
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) {
    if (!value.length) return "[]";
    return `[\n${value.map((one) => `${inner}${python(one, indent + 4)},\n`).join("")}${outer}]`;
  }
  if (typeof value === "object") {
    const entries = Object.entries(value);
    if (!entries.length) return "{}";
    const lines = entries.map(([key, one]) => `${inner}${JSON.stringify(key)}: ${python(shortened(key, one), indent + 4)},\n`);
    return `{\n${lines.join("")}${outer}}`;
  }
  // A JSON text is a Python text: the same quotes and escapes, surrogate pairs written out as they are.
  return JSON.stringify(value);
}

export function samples(choice, asked) {
  const streamed = { ...asked, stream: true };
  const quoted = json(streamed, 0).replaceAll("'", "'\\''");
  const fields = Object.entries(streamed).map(([name, value]) => `    ${name}=${python(value, 4)},\n`).join("");
  return {
    curl: `curl -N ${choice.base_url}/chat/completions \\
  -H "Authorization: Bearer $PENSTOCK_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '${quoted}'
`,
    python: `import os

from openai import OpenAI

client = OpenAI(base_url="${choice.base_url}", api_key=os.environ["PENSTOCK_API_KEY"])
stream = client.chat.completions.create(
${fields})
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
`,
    typescript: `import OpenAI from "openai";

const client = new OpenAI({ baseURL: "${choice.base_url}", apiKey: process.env.PENSTOCK_API_KEY });
const stream = await client.chat.completions.create(${json(streamed, 0)});
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}
`,
  };
}
