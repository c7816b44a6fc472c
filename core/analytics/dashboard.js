// Tabs, theme, charts and what links them. Without this script all pages stand one after the other. Colours
// are CSS variables inside the SVG, so a change of theme needs no drawing.
(() => {
  "use strict";
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);
  const { config, charts } = JSON.parse(byId("charts").textContent);
  const drawings = new Map(); // promises, by the element that a chart is drawn in
  const views = new Map(); // by the same, once they are drawn
  const timed = new Map(); // views over time, and all the time there is
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
      history.pushState(null, "", tab.hash); // going to an address would take the focus away
      show();
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
      await draw(place); // perhaps begun by another who shows this page
      await new Promise((resume) => setTimeout(resume));
    }
    if (!shown.hidden) root.dataset.ready = "true";
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
  function draw(place) {
    if (!drawings.has(place) && place.clientWidth) drawings.set(place, embed(place));
    return drawings.get(place);
  }
  async function embed(place) {
    const tooltip = (_handler, event, _item, value) => tell(event, value);
    const options = { actions: false, renderer: "svg", defaultStyle: false, config, tooltip };
    const { view } = await vegaEmbed(place, charts[place.dataset.chart], options);
    views.set(place, view);
    place.dispatchEvent(new CustomEvent("drawn", { bubbles: true, detail: view }));
    link(place, view, charts[place.dataset.chart]);
  }

  // Charts over time show the same time, and all charts the same dataset and phase.
  const corner = (view) => {
    const [left, top] = view.origin();
    const { left: right, top: down } = view.padding();
    return [left + right, top + down];
  };
  const x = (view, event) => {
    const { left } = view.container().getBoundingClientRect();
    return Math.max(0, Math.min(view.width(), event.clientX - left - corner(view)[0]));
  };
  function link(place, view, spec) {
    const signals = new Set((spec.params ?? []).map((param) => param.name));
    const hint = spec.usermeta?.hover;
    if (signals.has("t0")) {
      timed.set(view, { t0: view.signal("t0"), t1: view.signal("t1") });
      place.classList.add("linked");
      apply(view);
      drag(place, view);
      view.addEventListener("click", (_event, item) => {
        const { dataset, phase, from } = item?.datum ?? {};
        if (from === undefined) return;
        const again = chosen.dataset === dataset && chosen.phase === phase;
        choose(again ? { dataset: "", phase: "" } : { dataset, phase });
      });
    }
    place.addEventListener("pointermove", (event) => {
      const at = +view.scale("x")?.invert?.(x(view, event));
      if (timed.has(view)) all(".page:not([hidden]) .linked").forEach((other) => cross(other, at));
      if (hint) tell(event, nearest(view, hint, at));
    });
    place.addEventListener("pointerleave", (event) => {
      all(".cross").forEach((line) => line.remove());
      tell(event, null);
    });
  }
  function cross(place, at) {
    const view = views.get(place);
    if (!view) return;
    const line = place.querySelector(".cross") ?? place.appendChild(document.createElement("div"));
    const left = view.scale("x")(at);
    line.className = "cross";
    line.hidden = !(left >= 0 && left <= view.width());
    stretch(line, view, left, 1);
  }
  function stretch(box, view, left, width) {
    const [dx, dy] = corner(view);
    Object.assign(box.style, {
      left: `${dx + left}px`, width: `${width}px`, top: `${dy}px`, height: `${view.height()}px`,
    });
  }
  function nearest(view, hint, at) {
    const found = new Map();
    for (const row of view.data("points")) {
      const away = Math.abs(row[hint.x] - at);
      const best = found.get(row[hint.series]);
      if (row[hint.values[0][0]] !== null && (!best || away < best.away)) found.set(row[hint.series], { row, away });
    }
    if (!found.size) return null;
    const [{ row: first }] = [...found.values()].sort((a, b) => a.away - b.away);
    const when = hint.x === "at" ? `${new Date(first.at).toISOString().slice(11, 19)} UTC` : `${hint.x} ${first[hint.x]}`;
    const number = (value) => String(+Number(value).toPrecision(4));
    const lines = [...found].map(([name, { row }]) => [
      name,
      hint.values.map(([field, word]) => `${word} ${number(row[field])}`.trim()).join(", ") + ` ${hint.unit}`,
    ]);
    return Object.fromEntries([["", when], ...lines]);
  }
  function drag(place, view) {
    let start = null;
    const box = document.createElement("div");
    box.className = "brush";
    place.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "touch" || event.button !== 0) return; // a finger scrolls
      start = x(view, event);
    });
    window.addEventListener("pointermove", (event) => {
      if (start === null) return;
      const end = x(view, event);
      place.append(box);
      stretch(box, view, Math.min(start, end), Math.abs(end - start));
    });
    window.addEventListener("pointerup", (event) => {
      if (start === null) return;
      const ends = [start, x(view, event)].sort((a, b) => a - b);
      start = null;
      box.remove();
      if (ends[1] - ends[0] < 6) return;
      const [from, to] = ends.map((end) => +view.scale("x").invert(end));
      if (to - from >= 1) choose({ from, to });
    });
  }
  function apply(view) {
    const whole = timed.get(view);
    view.signal("t0", chosen.from ?? whole.t0).signal("t1", chosen.to ?? whole.t1);
    view.signal("chosen_dataset", chosen.dataset).signal("chosen_phase", chosen.phase).runAsync();
  }
  function choose(changes) {
    Object.assign(chosen, changes);
    for (const name of ["dataset", "phase"]) {
      if (byId(name)) byId(name).value = chosen[name];
      for (const part of all(`.page [data-${name}]`)) {
        part.classList.toggle(`not-${name}`, chosen[name] !== "" && part.dataset[name] !== chosen[name]);
        if (part.open === false && part.dataset[name] === chosen[name]) part.open = true;
      }
    }
    byId("reset").disabled = Object.values(chosen).every((value) => !value);
    for (const view of timed.keys()) apply(view);
    window.dispatchEvent(new Event("resize"));
  }
  if (byId("choices")) {
    byId("choices").addEventListener("change", ({ target }) => choose({ [target.id]: target.value }));
    byId("reset").addEventListener("click", () => choose({ from: null, to: null, dataset: "", phase: "" }));
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
