// Endpoints' pages: code samples as tabs, and an address that can be loaded again after something was shown once.

import "./tabs.js";

// What was shown as the answer to a form is not asked for again by a reload: that shows the endpoint instead.
const once = document.querySelector("[data-shown-once]");
if (once) history.replaceState(null, "", once.dataset.shownOnce);
