// Draws every chart of the page, one after the other so that the page stays usable. Colours are CSS
// variables inside the SVG, so a change of theme needs no drawing.
(async () => {
  const specs = JSON.parse(document.getElementById("charts").textContent);
  for (const figure of document.querySelectorAll("[data-chart]")) {
    await vegaEmbed(figure, specs[figure.dataset.chart], {
      actions: false,
      renderer: "svg",
      tooltip: { theme: "page" },
    });
    await new Promise((resume) => setTimeout(resume));
  }
  document.documentElement.dataset.ready = "true";
})();
