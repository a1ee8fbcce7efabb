// The list of requests: tidy addresses, and following what ends. Rows are asked for every two seconds while the
// page is looked at; rows that are here already are left alone, so that nothing moves under the reader.

const EVERY_MS = 2000;
const SLOWEST_MS = 30000;
const ROWS_MAX = 300;
const PAGE = 50;
const TELL_EVERY_MS = 10000;

const button = document.querySelector("[data-live]");
const told = document.getElementById("told");
let live = false;
let timer = 0;
let wait = EVERY_MS;
let untold = 0;
let telling = 0;
let toldAt = 0;

const found = () => document.getElementById("found");
const mayFollow = () => found()?.dataset.canLive === "yes";

function show() {
  button.hidden = !mayFollow();
  button.setAttribute("aria-pressed", String(live));
  button.classList.toggle("following", live);
  button.querySelector("span").textContent = live ? "Following live" : "Follow live";
  button.title = live ? "Press to pause" : "Shows requests as they end";
}

function remember() {
  const here = new URL(location);
  if (live) here.searchParams.set("live", "1");
  else here.searchParams.delete("live");
  history.replaceState(history.state, "", here);
}

function plan(after) {
  clearTimeout(timer);
  if (live && mayFollow() && !document.hidden) timer = setTimeout(look, after);
}

async function look() {
  const section = found();
  const newest = section.querySelector("#rows tr")?.dataset.place ?? section.dataset.now;
  const address = `/portal/requests?${section.dataset.liveQuery}&newer=${encodeURIComponent(newest)}`;
  const lost = document.getElementById("connection");
  try {
    const answer = await fetch(address, { headers: { "hx-request": "true", "hx-current-url": location.href } });
    if (answer.headers.get("hx-redirect")) location.assign(answer.headers.get("hx-redirect"));
    else if (answer.ok) {
      wait = EVERY_MS;
      lost.hidden = true;
      take(await answer.text());
    } else wait = Math.min(wait * 2, SLOWEST_MS);
  } catch {
    lost.hidden = false;
    wait = Math.min(wait * 2, SLOWEST_MS);
  }
  plan(wait);
}

function take(text) {
  const template = document.createElement("template");
  template.innerHTML = `<table><tbody>${text}</tbody></table>`;
  const rows = document.getElementById("rows");
  const known = new Set([...rows.rows].map((row) => row.dataset.place));
  const given = [...template.content.querySelectorAll("tr")];
  const fresh = given.filter((row) => !known.has(row.dataset.place));
  if (!fresh.length) return;
  // More ended than one look shows: what is here is too far behind to stand under it without a gap.
  if (fresh.length === given.length && given.length >= PAGE) rows.replaceChildren();
  const list = rows.closest("[data-list]");
  const before = list.getBoundingClientRect();
  list.hidden = false;
  found().querySelector("[data-none]")?.remove();
  for (const row of fresh.reverse()) put(rows, row);
  while (rows.rows.length > ROWS_MAX) rows.rows[rows.rows.length - 1].remove();
  if (before.top < 0) scrollBy(0, list.getBoundingClientRect().height - before.height);
  pointOlder(rows);
  tell(fresh.length);
}

// Rows stand by their place, the latest first; places are written so that they compare as text.
function put(rows, row) {
  row.classList.add("new");
  const next = [...rows.rows].find((other) => other.dataset.place < row.dataset.place);
  rows.insertBefore(row, next ?? null);
}

function pointOlder(rows) {
  const older = found().querySelector("[data-older]");
  if (!older) return;
  const address = new URL(older.href);
  address.searchParams.set("after", rows.rows[rows.rows.length - 1].dataset.place);
  older.href = address;
}

// Said at most every ten seconds, all in one.
function tell(count) {
  untold += count;
  clearTimeout(telling);
  telling = setTimeout(() => {
    told.textContent = untold === 1 ? "1 new request" : `${untold} new requests`;
    untold = 0;
    toldAt = Date.now();
  }, Math.max(0, toldAt + TELL_EVERY_MS - Date.now()));
}

function follow(on) {
  live = on;
  wait = EVERY_MS;
  show();
  remember();
  clearTimeout(telling);
  untold = 0;
  told.textContent = on ? "Following live" : "Paused";
  toldAt = Date.now();
  plan(0);
}

button.addEventListener("click", () => follow(!live));
document.addEventListener("visibilitychange", () => plan(0));
document.addEventListener("htmx:afterSettle", () => {
  if (live) remember();
  show();
  plan(EVERY_MS);
});
document.addEventListener("htmx:configRequest", (event) => {
  const asked = event.detail.parameters;
  const changed = event.detail.triggeringEvent?.target?.name;
  // Of two ways to say the time the one that was touched last counts.
  if (changed === "within") asked.since = asked.until = "";
  for (const name of Object.keys(asked)) if (asked[name] === "") delete asked[name];
});

live = new URLSearchParams(location.search).get("live") === "1" && mayFollow();
show();
plan(0);
