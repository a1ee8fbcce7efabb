// What every page does: the menu, the theme, copying, and saying so when the connection is lost.

const root = document.documentElement;

function remember(theme) {
  document.cookie = `penstock_theme=${theme}; path=/portal; max-age=31536000; samesite=lax`;
  root.dataset.theme = theme;
  document.dispatchEvent(new Event("theme"));
}

function isDark() {
  return root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
}

// While the menu of a narrow window is open, the page behind it cannot be reached: not by keys either.
const menuButton = document.querySelector("[data-menu]");

function openMenu(open) {
  if (!menuButton || open === (menuButton.getAttribute("aria-expanded") === "true")) return;
  const menu = document.getElementById(menuButton.getAttribute("aria-controls"));
  menuButton.setAttribute("aria-expanded", String(open));
  menu.classList.toggle("open", open);
  document.getElementById("content").inert = open;
  if (open) menu.querySelector("a[aria-current], li a").focus();
  else if (menu.contains(document.activeElement) || document.activeElement === document.body) menuButton.focus();
}
matchMedia("(max-width: 60rem)").addEventListener("change", () => openMenu(false));

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    say(button, "Copied");
  } catch {
    say(button, "Select it and press Ctrl+C: this browser does not let a page copy");
  }
}

function say(button, text) {
  const flash = document.createElement("span");
  flash.className = "sr";
  flash.setAttribute("role", "status");
  flash.textContent = text;
  button.after(flash);
  button.classList.add("done");
  button.title = text;
  setTimeout(() => {
    flash.remove();
    button.classList.remove("done");
  }, 2000);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if ("menu" in button.dataset) openMenu(button.getAttribute("aria-expanded") !== "true");
  else if ("themeToggle" in button.dataset) remember(isDark() ? "light" : "dark");
  else if ("copy" in button.dataset) copy(button, button.dataset.copy);
  else if ("copyCode" in button.dataset) copy(button, button.parentElement.querySelector("code").textContent);
  else if ("opens" in button.dataset) document.getElementById(button.dataset.opens).showModal();
  else if ("closes" in button.dataset) button.closest("dialog").close();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") openMenu(false);
});

document.addEventListener("change", (event) => {
  if ("submit" in event.target.dataset) event.target.form.requestSubmit();
});

// A form that costs or changes something is sent once, however often its button is pressed.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "post" || event.target.hasAttribute("hx-post")) return;
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "yes";
});
addEventListener("pageshow", () => {
  for (const form of document.forms) delete form.dataset.sent;
});

// What was done is said once: loading the page again does not say it again.
const here = new URL(location);
if (here.searchParams.has("notice")) {
  here.searchParams.delete("notice");
  history.replaceState(history.state, "", here);
}

const lost = document.getElementById("connection");
document.addEventListener("htmx:sendError", () => (lost.hidden = false));
document.addEventListener("htmx:timeout", () => (lost.hidden = false));
document.addEventListener("htmx:afterOnLoad", () => (lost.hidden = true));
addEventListener("offline", () => (lost.hidden = false));
addEventListener("online", () => (lost.hidden = true));

// Paper has no dark theme, and nothing to open.
addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("main details:not([open])")) {
    each.open = true;
    each.dataset.printed = "";
  }
});
addEventListener("afterprint", () => {
  for (const each of document.querySelectorAll("details[data-printed]")) {
    each.open = false;
    delete each.dataset.printed;
  }
});

// A form that was refused stands where it was filled in.
for (const dialog of document.querySelectorAll("dialog[data-open]")) dialog.showModal();

// What is asked again and again is left alone while nobody looks.
document.addEventListener("htmx:beforeRequest", (event) => {
  if (document.hidden && "live" in event.target.dataset) event.preventDefault();
});

// A row of tabs that is wider than its screen begins with the one that is chosen in sight.
for (const tab of document.querySelectorAll(".tabs > [aria-current]")) {
  const row = tab.parentElement;
  row.scrollLeft = tab.offsetLeft + tab.offsetWidth / 2 - row.clientWidth / 2 - row.offsetLeft;
}
