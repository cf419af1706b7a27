// Draws the figures of the page in the colours of the page: light, dark or print.
(() => {
  const figures = [...document.querySelectorAll("script.plot-data")].map((data) => [
    data.previousElementSibling,
    JSON.parse(data.textContent),
  ]);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const config = { responsive: true, displayModeBar: false };

  const painted = (value, style) => {
    if (typeof value === "string") {
      return value.replace(/^var\((--[\w-]+)\)$/, (_, name) => style.getPropertyValue(name).trim());
    }
    if (Array.isArray(value)) return value.map((one) => painted(one, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, painted(one, style)]));
    }
    return value;
  };

  const draw = (width) => {
    const style = getComputedStyle(document.documentElement);
    for (const [place, figure] of figures) {
      const { data, layout } = painted(figure, style);
      if (width) layout.width = place.closest(".panels") ? width / 2 - 12 : width;
      Plotly.react(place, data, layout, config);
    }
  };

  draw();
  dark.addEventListener("change", () => draw());
  window.addEventListener("beforeprint", () => {
    document.documentElement.classList.add("printing");
    draw(680);
  });
  window.addEventListener("afterprint", () => {
    document.documentElement.classList.remove("printing");
    draw();
  });
})();
