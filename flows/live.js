// Fills the live view from server-sent events. All text goes through textContent: nothing of the log is
// ever read as HTML. A section is built again only when what it shows has changed.
"use strict";

const byId = (id) => document.getElementById(id);
const shown = new Map();
let source = null;
let curves = { models: [] };
let lastMessage = 0;
const TONES = { completed: "good", running: "", interrupted: "warn", failed: "bad", blocked: "warn", damaged: "bad", unreadable: "bad" };
const MARKS = { completed: "✓", running: "▸", interrupted: "‖", failed: "✗", blocked: "⊘", skipped: "=", pending: "·" };

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function drawing(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Build a section again if what it shows has changed; no content hides it. */
function section(id, content, build) {
  const written = JSON.stringify(content ?? null);
  if (shown.get(id) === written) return;
  shown.set(id, written);
  const place = byId(id);
  place.hidden = content == null;
  if (content == null) return place.replaceChildren();
  const scrolled = place.querySelector("ol, pre")?.scrollTop;
  place.replaceChildren(...build(content));
  if (scrolled) place.querySelector("ol, pre").scrollTop = scrolled;
}

const number = (value, unit = "", digits = 0) => (value == null ? "unknown" : value.toFixed(digits) + unit);
const gib = (mib) => (mib == null ? "unknown" : (mib / 1024).toFixed(mib >= 102400 ? 0 : 1) + " GiB");
const share = (used, total) => (used == null || !total ? null : (100 * used) / total);
const worse = (value, warn, bad) => (value == null ? "" : value >= bad ? "bad" : value >= warn ? "warn" : "good");
const clock = (at) => new Date(at).toISOString().slice(11, 19);

function meter(label, fraction, tone = "") {
  const percent = Math.floor(100 * fraction + 1e-9);
  const bar = element("i");
  bar.style.width = `${100 * fraction}%`;
  return element("div", { class: `meter ${tone}`, role: "progressbar", "aria-label": label, "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": percent }, bar);
}

function tile(label, value, note = "", tone = "") {
  const small = note ? [element("small", {}, note)] : [];
  return element("div", { class: "tile" }, element("dt", {}, label), element("dd", { class: tone }, value, ...small));
}

/** A line chart; each line is [class, values], null where nothing is known. */
function chart(label, lines, low, high, filled) {
  const [width, height] = [300, 84];
  const span = high - low || 1;
  const y = (value) => (height - 3 - ((value - low) / span) * (height - 8)).toFixed(1);
  const svg = drawing("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label });
  for (const part of [0, 0.5, 1]) svg.append(drawing("line", { class: "rule", x1: 0, x2: width, y1: y(low + part * span), y2: y(low + part * span) }));
  for (const [css, values] of lines) {
    const step = width / Math.max(1, values.length - 1);
    const points = values.map((value, place) => (value == null ? null : `${(place * step).toFixed(1)},${y(value)}`)).filter((point) => point != null);
    if (!points.length) continue;
    if (points.length === 1) points.push(points[0].replace(/^[^,]+/, String(width)));
    if (filled) svg.append(drawing("polygon", { class: css, points: `${points[0].split(",")[0]},${height} ${points.join(" ")} ${points.at(-1).split(",")[0]},${height}` }));
    svg.append(drawing("polyline", { class: css, points: points.join(" ") }));
  }
  return svg;
}

function figure(title, figures, svg, ...axis) {
  return element("figure", {}, element("figcaption", {}, title, " ", element("span", { class: "figures" }, figures)), svg, element("div", { class: "axis" }, ...axis.map((text) => element("span", {}, text))));
}

function phaseRow([phase, [time, now, quality]]) {
  const tone = TONES[phase.status] ?? "";
  const mark = element("span", { class: `mark ${tone}`, title: phase.status }, MARKS[phase.status] ?? "");
  const again = phase.attempt > 1 ? `attempt ${phase.attempt}${time ? ", " : ""}` : "";
  const name = element("span", {}, phase.phase);
  if (phase.status !== "running") return element("div", { class: "phase rest" }, mark, name, element("span", { class: "time" }, again + time));
  const percent = element("span", { class: "share" }, `${Math.floor(100 * phase.fraction + 1e-9)} %`);
  const detail = element("span", { class: "detail" }, [...now, ...quality].join(", "));
  return element("div", { class: "phase" }, mark, name, meter(`${phase.dataset} ${phase.phase}`, phase.fraction), percent, element("span", { class: "time" }, again + time), detail);
}

function buildPhases(rows) {
  const datasets = new Map();
  for (const row of rows) datasets.set(row[0].dataset, [...(datasets.get(row[0].dataset) ?? []), row]);
  return [element("h2", {}, "Phases"), ...[...datasets].map(([name, own]) => element("div", { class: "dataset" }, element("h3", {}, name), ...own.map(phaseRow)))];
}

function buildModels(models) {
  const legend = element("ul", { class: "legend" }, element("li", { class: "key train" }, "training loss"), element("li", { class: "key val" }, "validation loss"));
  const figures = models.map(([dataset, model]) => {
    const values = [...model.train_losses, ...model.val_losses];
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const last = `loss ${model.train_losses.at(-1).toPrecision(4)}, validation ${model.val_losses.at(-1).toPrecision(4)}` + (model.val_metric == null ? "" : `, MCC ${model.val_metric.toFixed(3)}`);
    const [first, newest] = [model.epochs[0] + 1, model.epochs.at(-1) + 1];
    const name = `${dataset} ${model.name}`;
    const label = `Loss of ${name} over epochs ${first} to ${newest}, between ${low.toPrecision(3)} and ${high.toPrecision(3)}; last ${last}`;
    return figure(name, last, chart(label, [["train", model.train_losses], ["val", model.val_losses]], low, high, false), `epoch ${first}`, `${low.toPrecision(3)} to ${high.toPrecision(3)}`, `epoch ${newest}`);
  });
  return [element("h2", {}, "Loss of each model"), legend, element("div", { class: "charts" }, ...figures)];
}

function buildMachine(machine) {
  const ago = machine.seconds_ago.length ? `${Math.round(machine.seconds_ago[0])} s ago` : "";
  const used = (title, figures, history) => {
    const label = `${title} over the last ${ago.replace(" ago", "")}, 0 to 100 %; now ${figures}`;
    return figure(title, figures, chart(label, [["used", history]], 0, 100, true), ago, "0 to 100 %", "now");
  };
  const charts = [used("CPU", `${number(machine.cpu_percent, " %")} of ${machine.num_cpus ?? "?"} CPUs`, machine.cpu_history), used("RAM", `${gib(machine.ram_used_mib)} of ${gib(machine.ram_total_mib)}`, machine.ram_history)];
  for (const gpu of machine.gpus) {
    const heat = [gpu.temperature_c == null ? "" : `, ${number(gpu.temperature_c, " °C")}`, gpu.power_w == null ? "" : `, ${number(gpu.power_w, " W")}`].join("");
    charts.push(used(`GPU ${gpu.index} ${gpu.name}`, number(gpu.utilization_percent, " %") + heat, gpu.utilization_history));
    charts.push(used(`VRAM of GPU ${gpu.index}`, `${gib(gpu.vram_used_mib)} of ${gib(gpu.vram_total_mib)}`, gpu.vram_history));
  }
  return [element("h2", {}, "Machine"), element("div", { class: "charts" }, ...charts)];
}

function buildTiles({ machine, speed, model }) {
  const ram = share(machine.ram_used_mib, machine.ram_total_mib);
  const tiles = [];
  if (speed != null) tiles.push(tile("Graphs per second", Math.round(speed).toLocaleString("en"), model ?? ""));
  tiles.push(tile("CPU", number(machine.cpu_percent, " %"), `${machine.num_cpus ?? "?"} CPUs`));
  tiles.push(tile("RAM", number(ram, " %"), `${gib(machine.ram_used_mib)} of ${gib(machine.ram_total_mib)}`, worse(ram, 80, 92).replace("good", "")));
  for (const gpu of machine.gpus) {
    const vram = share(gpu.vram_used_mib, gpu.vram_total_mib);
    tiles.push(tile(`GPU ${gpu.index}`, number(gpu.utilization_percent, " %"), gpu.name));
    tiles.push(tile(`VRAM ${gpu.index}`, number(vram, " %"), `${gib(gpu.vram_used_mib)} of ${gib(gpu.vram_total_mib)}`, worse(vram, 92, 97).replace("good", "")));
  }
  tiles.push(tile("Disk", `${gib(machine.disk_free_mib)}`, "free", machine.disk_free_mib != null && machine.disk_free_mib < 4000 ? "bad" : ""));
  return tiles;
}

function buildProcesses(processes) {
  const heads = ["process", "status", "doing", "silent", "restarts", "RAM", "last failure"];
  const rows = processes.map((p) => element("tr", {}, element("th", { scope: "row" }, p.dataset), element("td", { class: { "hanging?": "warn", stopped: "warn", gone: "bad", abandoned: "bad", failed: "bad" }[p.state] ?? "" }, p.state), element("td", { class: "long" }, p.doing), element("td", {}, p.since_s == null ? "" : `${Math.round(p.since_s)} s`), element("td", {}, String(p.num_restarts)), element("td", {}, p.rss_mib == null ? "" : gib(p.rss_mib)), element("td", {}, p.failure)));
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))), element("tbody", {}, ...rows));
  return [element("h2", {}, "Training processes"), element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Training processes" }, table)];
}

function buildDecisions(decisions) {
  const items = decisions.toReversed().map((d) => element("li", {}, element("time", { datetime: d.at }, clock(d.at)), element("span", { class: d.tone === "info" ? "" : d.tone }, element("strong", {}, d.where ? `${d.where}: ` : ""), d.text)));
  return [element("h2", {}, "What was decided"), element("p", { class: "muted" }, "The newest first; times are UTC."), element("ol", { tabindex: "0" }, ...items)];
}

function buildError({ error, problem }) {
  if (problem) return [element("h2", {}, "The events of this plan cannot be read"), element("pre", { tabindex: "0" }, problem)];
  const lead = `${clock(error.at)} UTC, attempt ${error.attempt} of ${error.where} (${error.kind}); the phase is ${error.now} now.`;
  const report = error.report ? [element("p", { class: "muted" }, `Stacks and last signs of life: ${error.report}`)] : [];
  return [element("h2", {}, "Last error"), element("p", {}, lead), element("pre", { tabindex: "0" }, error.message), ...report];
}

function showPlans(view) {
  const select = byId("plans");
  select.closest("label").hidden = view.plans.length === 0;
  const chosen = new URLSearchParams(location.search).get("plan") ?? "";
  const lines = [["", "the one at work"], ...view.plans.toReversed().map((line) => [line.plan_id, `${line.plan_id}, ${line.status}`])];
  const written = JSON.stringify([chosen, lines]);
  if (shown.get("plans") === written || document.activeElement === select) return;
  shown.set("plans", written);
  select.replaceChildren(...lines.map(([value, text]) => element("option", { value }, text)));
  select.value = chosen;
}

function showNow({ view, words, has_dashboard: hasDashboard, is_over: isOver }) {
  const title = view.plan_id ?? "No plan yet";
  byId("plan").textContent = title;
  const percent = Math.floor(100 * view.fraction + 1e-9);
  document.title = view.plan_id ? `${isOver ? view.status : `${percent} %`} · ${title}` : "No plan yet";
  const status = byId("status");
  status.hidden = !view.plan_id;
  status.textContent = view.status;
  status.className = `chip ${TONES[view.status] ?? ""}`;
  byId("next").hidden = !words.next;
  byId("next").textContent = words.next;
  byId("link").hidden = !hasDashboard;
  if (hasDashboard) byId("link").firstElementChild.href = `/plans/${encodeURIComponent(view.plan_id)}/dashboard`;
  showPlans(view);
  section("progress", view.phases.length ? [percent, words.left, view.fraction] : null, () => [element("div", { class: "headline" }, element("strong", {}, `${percent} % done`), element("span", {}, words.left)), meter("the plan", view.fraction, isOver ? TONES[view.status] : "")]);
  const failed = view.last_error && view.last_error.now !== "completed" ? view.last_error : null;
  section("error", view.problem || failed ? { problem: view.problem, error: failed } : null, buildError);
  const atWork = view.phases.find((phase) => phase.status === "running");
  const atMoment = view.status === "running" ? atWork : null;
  const { cpu_history: _, ram_history: __, seconds_ago: ___, ...machine } = view.resources;
  section("tiles", { machine, speed: atMoment?.graphs_per_s, model: atMoment?.model }, buildTiles);
  section("phases", view.phases.length ? view.phases.map((phase, place) => [phase, words.phases[place]]) : null, buildPhases);
  section("machine", view.resources, buildMachine);
  section("processes", view.processes.length ? view.processes : null, buildProcesses);
  section("decisions", view.decisions.length ? view.decisions : null, buildDecisions);
}

function showCurves() {
  const models = curves.models.flatMap(([dataset, , own]) => own.filter((model) => model.epochs.length).map((model) => [dataset, model]));
  section("models", models.length ? models : null, buildModels);
}

function say(state, text) {
  const place = byId("connection");
  if (place.textContent !== text) place.textContent = text;
  place.className = `connection ${state}`;
  document.body.classList.toggle("stale", state === "lost");
}

function connect() {
  source?.close();
  source = new EventSource(`/events${location.search}`);
  source.addEventListener("now", (message) => {
    lastMessage = Date.now();
    say("live", "live");
    showNow(JSON.parse(message.data));
    document.documentElement.dataset.ready = "true";
  });
  source.addEventListener("curves", (message) => {
    curves = JSON.parse(message.data);
    showCurves();
  });
  source.addEventListener("error", () => say("lost", "disconnected, trying again"));
}

byId("plans").addEventListener("change", (event) => {
  const plan = event.target.value;
  history.replaceState(null, "", plan ? `?plan=${encodeURIComponent(plan)}` : "/");
  event.target.blur();
  connect();
});
// Nobody looks at a hidden page: it costs nothing. A connection that was refused or fell silent is made again.
document.addEventListener("visibilitychange", () => (document.hidden ? source?.close() : connect()));
setInterval(() => {
  if (document.hidden) return;
  if (source.readyState === EventSource.CLOSED || (lastMessage && Date.now() - lastMessage > 15000)) {
    say("lost", "disconnected, trying again");
    lastMessage = 0;
    connect();
  }
}, 3000);
connect();
