// A bar leads into its day, hour or minute, as the entries of the table below it do.

for (const canvas of document.querySelectorAll("canvas[data-chart]")) {
  const { links } = JSON.parse(document.getElementById(canvas.dataset.chart).textContent);
  if (!links) continue;
  canvas.classList.add("leads");
  canvas.addEventListener("click", (event) => {
    const [hit] = Chart.getChart(canvas)?.getElementsAtEventForMode(event, "index", { intersect: false }, true) ?? [];
    if (hit && links[hit.index]) location.assign(links[hit.index]);
  });
}
