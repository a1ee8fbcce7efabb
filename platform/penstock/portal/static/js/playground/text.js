// A model's text as DOM nodes: paragraphs, headings, code fences, `code` and **strong** words. Everything is a
// text node, so whatever a model writes is read, never run.

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/;
const INLINE = /(`[^`\n]+`|\*\*[^*\n]+\*\*)/;
const HEADING = /^ {0,3}#{1,6}\s+(.+)$/;

// [{kind: "text" | "heading" | "code", text, language}], the last of them maybe still being written.
export function blocks(source) {
  const found = [];
  let lines = [];
  let fence = null;
  const close = () => {
    const text = lines.join("\n");
    if (fence) found.push({ kind: "code", text, language: fence.language });
    else if (text.trim()) found.push({ kind: "text", text: text.replace(/^\n+|\s+$/g, "") });
    lines = [];
  };
  for (const line of source.split("\n")) {
    const mark = FENCE.exec(line);
    const heading = fence ? null : HEADING.exec(line);
    if (fence && mark && !mark[2] && mark[1].startsWith(fence.mark)) {
      close();
      fence = null;
    } else if (!fence && mark) {
      close();
      fence = { mark: mark[1], language: mark[2] };
    } else if (heading) {
      close();
      found.push({ kind: "heading", text: heading[1] });
    } else if (!fence && !line.trim()) {
      close();
    } else {
      lines.push(line);
    }
  }
  if (lines.length || fence) close();
  return found;
}

function inline(text) {
  return text.split(INLINE).map((part) => {
    const code = part.length > 2 && part.startsWith("`") && part.endsWith("`");
    const strong = part.length > 4 && part.startsWith("**") && part.endsWith("**");
    if (!code && !strong) return document.createTextNode(part);
    const node = document.createElement(code ? "code" : "strong");
    node.textContent = code ? part.slice(1, -1) : part.slice(2, -2);
    return node;
  });
}

export function codeBlock(text, language) {
  const node = document.getElementById("t-code").content.firstElementChild.cloneNode(true);
  node.querySelector("code").textContent = text;
  node.querySelector("pre").setAttribute("aria-label", language || "code");
  return node;
}

function drawn(block) {
  if (block.kind === "code") return codeBlock(block.text, block.language);
  const node = document.createElement("p");
  node.dir = "auto";
  if (block.kind === "heading") {
    // Looks like one, and leaves the page's own outline alone.
    node.className = "heading";
  }
  node.append(...inline(block.text));
  return node;
}

// Shows a growing text in an element; what is unchanged keeps its nodes, and with them a reader's selection.
export class Text {
  constructor(element) {
    this.element = element;
    this.shown = [];
  }

  show(source) {
    const now = blocks(source.trimStart());
    now.forEach((block, at) => {
      const before = this.shown[at];
      if (before && before.kind === block.kind && before.language === block.language) {
        if (before.text === block.text) return;
        if (block.kind === "code") {
          this.element.children[at].querySelector("code").textContent = block.text;
          return;
        }
      }
      if (before) this.element.children[at].replaceWith(drawn(block));
      else this.element.append(drawn(block));
    });
    while (this.element.children.length > now.length) this.element.lastElementChild.remove();
    this.shown = now;
  }
}
