// Tabs, theme, charts and what links them. Without this script all pages stand one after the other. Colours
// are CSS variables inside the SVG, so a change of theme needs no drawing.
(() => {
  "use strict";
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);
  const { config, charts } = JSON.parse(byId("charts").textContent);
  const views = new Map(); // by the element that a chart is drawn in
  const chosen = { from: null, to: null, dataset: "", phase: "" };

  // Theme: as the system has it, light, dark. Where nothing may be stored it lasts as long as the page.
  const themes = ["auto", "light", "dark"];
  const remembered = (value) => {
    try {
      if (value) localStorage.setItem("dashboard-theme", value);
      return localStorage.getItem("dashboard-theme");
    } catch {
      return null;
    }
  };
  const setTheme = (theme) => {
    root.dataset.theme = theme;
    byId("theme").textContent = `Theme: ${theme}`;
  };
  setTheme(themes.includes(remembered()) ? remembered() : "auto");
  byId("theme").hidden = false;
  byId("theme").addEventListener("click", () => {
    setTheme(themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length]);
    remembered(root.dataset.theme);
  });

  // Pages.
  const pages = all(".page");
  const tabs = pages.map((page) => byId(`tab-${page.id}`));
  tabs[0].parentElement.setAttribute("role", "tablist");
  pages.forEach((page, number) => {
    page.setAttribute("role", "tabpanel");
    tabs[number].setAttribute("role", "tab");
    tabs[number].setAttribute("aria-controls", page.id);
    tabs[number].addEventListener("keydown", (event) => {
      const last = tabs.length - 1;
      const to = { ArrowRight: number + 1, ArrowLeft: number - 1, Home: 0, End: last }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const tab = tabs[(to + tabs.length) % tabs.length];
      tab.focus();
      location.hash = tab.hash;
    });
  });
  const show = async () => {
    // The address may name something within a page.
    const target = location.hash.length > 1 ? byId(decodeURIComponent(location.hash.slice(1))) : null;
    const shown = target?.closest(".page") ?? pages[0];
    pages.forEach((page, number) => {
      page.hidden = page !== shown;
      tabs[number].setAttribute("aria-selected", String(page === shown));
      tabs[number].tabIndex = page === shown ? 0 : -1;
    });
    if (byId("choices")) byId("choices").hidden = !shown.querySelector("[data-dataset], .linked");
    window.scrollTo(0, 0);
    window.dispatchEvent(new Event("resize")); // charts that were hidden fill their places
    if (target && target !== shown) target.scrollIntoView();
    root.dataset.ready = "false";
    for (const place of all("[data-chart]", shown)) {
      if (shown.hidden) return;
      if (views.has(place) || place.closest("details:not([open])")) continue;
      await draw(place);
      await new Promise((resume) => setTimeout(resume));
    }
    root.dataset.ready = "true";
  };
  const drawAll = (within) => all("[data-chart]", within).forEach(draw);
  all("details").forEach((details) =>
    details.addEventListener("toggle", () => details.open && drawAll(details)),
  );
  window.addEventListener("beforeprint", () => {
    const hidden = pages.filter((page) => page.hidden);
    pages.forEach((page) => (page.hidden = false));
    all(".page").forEach(drawAll);
    hidden.forEach((page) => (page.hidden = true)); // print shows them all the same
  });

  // Charts. A printer gets them in time: drawing waits for nothing but itself.
  async function draw(place) {
    if (views.has(place) || !place.clientWidth) return;
    views.set(place, null);
    const tooltip = (_handler, event, _item, value) => tell(event, value);
    const options = { actions: false, renderer: "svg", config, tooltip };
    const { view } = await vegaEmbed(place, charts[place.dataset.chart], options);
    views.set(place, view);
  }

  // Tooltips: an object is a table, anything else a line.
  const tooltip = document.createElement("div");
  tooltip.id = "tooltip";
  tooltip.setAttribute("role", "status");
  tooltip.hidden = true;
  document.body.append(tooltip);
  function tell(event, value) {
    tooltip.hidden = value === null || value === undefined || value === "";
    if (tooltip.hidden) return;
    const rows = typeof value === "object" ? Object.entries(value) : [["", value]];
    tooltip.replaceChildren(
      ...rows
        .filter(([, text]) => text !== "" && text !== null)
        .map(([name, text]) => {
          const row = document.createElement("div");
          row.append(Object.assign(document.createElement("span"), { textContent: name }), String(text));
          return row;
        }),
    );
    const { offsetWidth: width, offsetHeight: height } = tooltip;
    const x = Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8));
    const y = event.clientY + 16 + height > innerHeight ? event.clientY - height - 10 : event.clientY + 16;
    tooltip.style.transform = `translate(${x}px, ${Math.max(4, y)}px)`;
  }

  window.addEventListener("hashchange", show);
  show();
})();
