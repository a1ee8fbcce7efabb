// Parts of a page that are asked for anew: <div hx-trigger="fresh" data-fresh-s="5">, while somebody looks at them.

const due = new WeakMap();

setInterval(() => {
  if (document.hidden) return;
  const now = Date.now();
  for (const part of document.querySelectorAll("[data-fresh-s]")) {
    if (!due.has(part)) due.set(part, now + part.dataset.freshS * 1000);
    else if (due.get(part) <= now && !part.contains(document.activeElement)) {
      due.set(part, now + part.dataset.freshS * 1000);
      htmx.trigger(part, "fresh");
    }
  }
}, 250);
