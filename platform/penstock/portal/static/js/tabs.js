// Each <section> of an element with data-tabs becomes the panel of a tab named by its heading.
function makeTabs(group) {
  const panels = [...group.querySelectorAll(":scope > section")];
  const list = document.createElement("div");
  list.className = "tabs";
  list.setAttribute("role", "tablist");
  list.setAttribute("aria-label", group.dataset.tabs);
  const tabs = panels.map((panel, place) => {
    const tab = document.createElement("button");
    tab.type = "button";
    tab.id = `${panel.id}-tab`;
    tab.textContent = panel.querySelector("h3").textContent;
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", panel.id);
    tab.addEventListener("click", () => choose(place));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const next = { Home: 0, End: panels.length - 1 }[event.key] ?? (step && (place + step + panels.length) % panels.length);
      if (next === undefined) return;
      event.preventDefault();
      choose(next);
      tabs[next].focus();
    });
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", tab.id);
    return tab;
  });
  function choose(chosen) {
    panels.forEach((panel, place) => (panel.hidden = place !== chosen));
    tabs.forEach((tab, place) => {
      tab.setAttribute("aria-selected", String(place === chosen));
      tab.tabIndex = place === chosen ? 0 : -1;
    });
    try {
      localStorage.setItem("penstock-language", panels[chosen].dataset.language);
    } catch {}
  }
  list.append(...tabs);
  group.prepend(list);
  group.classList.add("tabbed");
  let known = null;
  try {
    known = localStorage.getItem("penstock-language");
  } catch {}
  choose(Math.max(0, panels.findIndex((panel) => panel.dataset.language === known)));
}
for (const group of document.querySelectorAll("[data-tabs]")) makeTabs(group);
