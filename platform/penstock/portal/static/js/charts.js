// Draws every <canvas data-chart="id"> from the JSON in the element of that id:
//   {type: "line" | "bar", labels: [...], stacked: bool, unit: "usd" | "tokens" | "ms" | "", series: [{name, values}]}
//   and for lines stepped: true (prices), dots: true (few points, or gaps between them),
// in the colours of the page's theme. Chart.js is loaded before this, as a plain script.

const COLOURS = {
  light: ["#0b6e74", "#c2571a", "#4456b8", "#8a6a00", "#9b2f6b", "#2f7d32", "#5b5f66", "#00629b"],
  dark: ["#56cdc6", "#f0975f", "#9dacff", "#e2bf4f", "#ee8fc2", "#86d489", "#b4bac2", "#6fc0f2"],
};
const drawn = new Map();

let onPaper = false;

function isDark() {
  if (onPaper) return false;
  const theme = document.documentElement.dataset.theme;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function written(value, unit) {
  if (unit === "usd") return "$" + value.toLocaleString("en", { maximumFractionDigits: 9 });
  if (unit === "ms") return value.toLocaleString("en", { maximumFractionDigits: 1 }) + " ms";
  return value.toLocaleString("en") + (unit ? " " + unit : "");
}

function draw(canvas) {
  const spec = JSON.parse(document.getElementById(canvas.dataset.chart).textContent);
  const style = getComputedStyle(document.documentElement);
  const probe = document.createElement("i");
  document.body.append(probe);
  const colour = (name) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };
  const [quiet, line, surface] = ["--quiet", "--line", "--surface"].map(colour);
  probe.remove();
  const colours = isDark() ? COLOURS.dark : COLOURS.light;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  drawn.get(canvas)?.destroy();
  Chart.defaults.font.family = style.getPropertyValue("--sans");
  drawn.set(
    canvas,
    new Chart(canvas, {
      type: spec.type,
      data: {
        labels: spec.labels,
        datasets: spec.series.map((one, index) => ({
          label: one.name,
          data: one.values,
          backgroundColor: colours[index % colours.length],
          borderColor: spec.type === "line" ? colours[index % colours.length] : surface,
          borderWidth: spec.type === "line" ? 2 : { top: 1 },
          borderRadius: spec.type === "bar" ? 3 : 0,
          maxBarThickness: 42,
          pointRadius: spec.dots ? 3 : 0,
          pointHitRadius: 12,
          stepped: spec.stepped ?? false,
          tension: spec.stepped ? 0 : 0.25,
        })),
      },
      options: {
        maintainAspectRatio: false,
        animation: still || onPaper ? false : { duration: 250 },
        interaction: { mode: "index", intersect: false },
        scales: {
          x: { stacked: spec.stacked, grid: { display: false }, ticks: { color: quiet, maxRotation: 0, autoSkipPadding: 16 }, border: { color: line } },
          y: { stacked: spec.stacked, beginAtZero: true, grid: { color: line }, border: { display: false }, ticks: { color: quiet, maxTicksLimit: 6, callback: (value) => written(value, spec.unit) } },
        },
        plugins: {
          legend: { display: spec.series.length > 1, position: "bottom", labels: { color: quiet, boxWidth: 10, boxHeight: 10, useBorderRadius: true, borderRadius: 3 } },
          tooltip: { callbacks: { label: (item) => `${item.dataset.label}: ${written(item.parsed.y, spec.unit)}` } },
        },
      },
    }),
  );
}

function drawAll(within = document) {
  for (const canvas of within.querySelectorAll("canvas[data-chart]")) draw(canvas);
}

drawAll();
document.addEventListener("theme", () => drawAll());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll());
document.addEventListener("htmx:afterSwap", (event) => drawAll(event.target));
for (const [event, paper] of [["beforeprint", true], ["afterprint", false]]) {
  addEventListener(event, () => {
    onPaper = paper;
    drawAll();
  });
}
