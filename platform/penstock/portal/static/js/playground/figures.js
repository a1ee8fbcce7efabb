// Numbers as people read them; money exactly.

export function dollars(nanoUsd) {
  const whole = Math.floor(nanoUsd / 1e9);
  const fraction = String(nanoUsd % 1e9).padStart(9, "0").replace(/0+$/, "").padEnd(2, "0");
  return `$${whole.toLocaleString("en")}.${fraction}`;
}

export function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return ms < 60_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

// What came in one piece says nothing of how fast it was made.
export function speed(tokens, ms) {
  if (tokens < 2 || ms < 5) return "";
  const perSecond = ((tokens - 1) * 1000) / ms;
  return `${perSecond < 10 ? perSecond.toFixed(1) : Math.round(perSecond).toLocaleString("en")} tokens/s`;
}

export function bytes(count) {
  return count < 1024 * 1024 ? `${Math.ceil(count / 1024)} KiB` : `${(count / 1024 / 1024).toFixed(1)} MiB`;
}
