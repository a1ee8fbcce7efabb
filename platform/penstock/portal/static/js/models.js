// The catalog's pages: filters that fold away on small screens, and samples of code as tabs.

import "./tabs.js";

document.documentElement.classList.add("scripted");

// Filters stay as they were opened while each letter that is typed brings new ones.
let open = false;
function showFilters() {
  for (const button of document.querySelectorAll("[data-filters]")) {
    button.setAttribute("aria-expanded", String(open));
    document.getElementById(button.getAttribute("aria-controls")).classList.toggle("open", open);
  }
}
document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-filters]")) return;
  open = !open;
  showFilters();
});
document.addEventListener("htmx:afterSwap", showFilters);
