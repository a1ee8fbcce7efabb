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

function openMenu(button) {
  const open = button.getAttribute("aria-expanded") !== "true";
  button.setAttribute("aria-expanded", String(open));
  document.getElementById(button.getAttribute("aria-controls")).classList.toggle("open", open);
}

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
  if ("menu" in button.dataset) openMenu(button);
  else if ("themeToggle" in button.dataset) remember(isDark() ? "light" : "dark");
  else if ("copy" in button.dataset) copy(button, button.dataset.copy);
  else if ("copyCode" in button.dataset) copy(button, button.parentElement.querySelector("code").textContent);
  else if ("opens" in button.dataset) document.getElementById(button.dataset.opens).showModal();
  else if ("closes" in button.dataset) button.closest("dialog").close();
});

document.addEventListener("keydown", (event) => {
  const button = document.querySelector("[data-menu]");
  if (event.key === "Escape" && button?.getAttribute("aria-expanded") === "true") {
    openMenu(button);
    button.focus();
  }
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

const lost = document.getElementById("connection");
document.addEventListener("htmx:sendError", () => (lost.hidden = false));
document.addEventListener("htmx:timeout", () => (lost.hidden = false));
document.addEventListener("htmx:afterOnLoad", () => (lost.hidden = true));
addEventListener("offline", () => (lost.hidden = false));
addEventListener("online", () => (lost.hidden = true));
