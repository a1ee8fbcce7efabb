// A page with a new secret was answered to a form. Loading it again shows the list, and makes no second key.
history.replaceState(null, "", document.querySelector("[data-after]").dataset.after);
