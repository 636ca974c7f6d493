// SPDX-License-Identifier: BSD-2-Clause
// What the page can do beyond being read: details, filters, zoom, sorting. Names and labels come
// from others: they are set as text, never as HTML.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const graph = document.getElementById("graph");
const detail = document.getElementById("detail");
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const byId = (id) => document.getElementById(id);
const number = (count) => count.toLocaleString("en-US");
document.documentElement.classList.add("live");

function make(tag, text, className) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

// --- details of what is pointed at ---

function table(rows) {
  const list = document.createElement("dl");
  for (const [name, value] of rows) {
    list.append(make("dt", name, value === undefined ? "head" : ""));
    if (value !== undefined) list.append(make("dd", typeof value === "number" ? number(value) : value));
  }
  return list;
}

const some = (title, rows) => (rows.length ? [[title], ...rows.slice(0, 12)] : []);
const counted = (rows) => rows.filter(([, value]) => value);

function showEdge(edge) {
  const [from, to] = [data.nodes[edge.from], data.nodes[edge.to]];
  const denied = edge.denied.map(([what, why, times, done]) => [`${what}: ${why}${done ? "" : " (not enforced)"}`, times]);
  detail.replaceChildren(
    make("h3", `${from.short} → ${to.short}`),
    make("div", edge.words.slice(edge.words.indexOf(": ") + 2)),
    table([
      ...counted([["messages", edge.messages], ["replies", edge.replies], ["bytes", edge.bytes],
        ["ports", edge.ports], ["rights given away", edge.rights]]),
      ...some("refused", denied), ...some("methods", edge.methods),
      ...some("allowed, not called", edge.idle.map((name) => [name, ""])), ...some("rights used", edge.events),
    ]),
  );
}

function showNode(node) {
  detail.replaceChildren(
    make("h3", node.short),
    make("div", node.name),
    make("div", node.label),
    table([
      ...counted([["sent", node.sent], ["received", node.received], ["refused", node.denied]]),
      ...some("with its own ports", node.own), ...some("stands for", node.members.map((name) => [name, ""])),
    ]),
  );
}

const leave = () => all(".near").forEach((each) => each.classList.remove("near"));

function show(target) {
  const item = target.closest(".edge, .node, tr[data-e]");
  if (!item) return;
  leave();
  if (item.dataset.n) {
    const at = Number(item.dataset.n);
    edges.forEach((each, i) => each.classList.toggle("near", data.edges[i].from === at || data.edges[i].to === at));
    showNode(data.nodes[at]);
  } else {
    edges[item.dataset.e].classList.add("near");
    showEdge(data.edges[item.dataset.e]);
  }
}

const edges = all(".edge", graph);
const nodes = all(".node", graph);
const rows = all("#edges tbody tr");
for (const part of [graph, byId("edges")]) {
  part.addEventListener("pointerover", (event) => show(event.target));
  part.addEventListener("focusin", (event) => show(event.target));
  part.addEventListener("click", (event) => show(event.target));
  part.addEventListener("pointerleave", leave);
  part.addEventListener("focusout", leave);
}

// --- filters ---

const chosen = (id) => byId(id)?.value ?? "";
const has = (text, words) => text.toLowerCase().includes(words);
const unchecked = () => new Set(all(".chip input").filter((box) => !box.checked).map((box) => box.value));

function filter() {
  const [words, label, method, off] = [chosen("search").toLowerCase(), chosen("label"), chosen("method"), unchecked()];
  const found = data.nodes.map((node) => words !== "" && [node.name, node.short, node.label].some((text) => has(text, words)));
  const linked = new Set();
  let shown = 0;
  data.edges.forEach((edge, at) => {
    const ends = [edge.from, edge.to];
    const wanted = (!words || ends.some((end) => found[end]))
      && (!label || ends.some((end) => data.nodes[end].type === label))
      && (!method || edge.methods.some(([name]) => name === method));
    edges[at].classList.toggle("hidden", !wanted);
    if (!wanted || off.has(edge.outcome)) return;
    shown += 1;
    ends.forEach((end) => linked.add(end));
  });
  nodes.forEach((node, at) => {
    node.classList.toggle("found", found[at]);
    node.classList.toggle("faint", !linked.has(at) && !found[at]);
  });
  rows.forEach((row) => row.classList.toggle("hidden", edges[row.dataset.e].classList.contains("hidden")));
  byId("shown").textContent = `${number(shown)} of ${number(data.edges.length)} arrows`;
}

for (const control of all("#search, #label, #method, .chip input")) control.addEventListener("input", filter);
filter();

// --- zoom and pan ---

const home = graph.dataset.box.split(" ").map(Number);
let box = [...home];

function look(next) {
  const width = Math.min(Math.max(next[2], home[2] / 40), home[2]);
  const height = (width / home[2]) * home[3];
  const clamp = (at, size, axis) => Math.min(Math.max(at, home[axis]), home[axis] + home[axis + 2] - size);
  box = [clamp(next[0], width, 0), clamp(next[1], height, 1), width, height];
  graph.setAttribute("viewBox", box.join(" "));
}

function zoom(by, x = box[0] + box[2] / 2, y = box[1] + box[3] / 2) {
  look([x - (x - box[0]) * by, y - (y - box[1]) * by, box[2] * by]);
}

function place(event) {
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(graph.getScreenCTM().inverse());
  return [point.x, point.y];
}

byId("in").addEventListener("click", () => zoom(0.7));
byId("out").addEventListener("click", () => zoom(1 / 0.7));
byId("whole").addEventListener("click", () => look(home));
graph.addEventListener("dblclick", (event) => zoom(0.6, ...place(event)));
graph.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.metaKey) return; // the wheel alone scrolls the page
  event.preventDefault();
  zoom(event.deltaY > 0 ? 1.15 : 1 / 1.15, ...place(event));
}, { passive: false });

let held = null;
graph.addEventListener("pointerdown", (event) => { if (event.button === 0) held = place(event); });
graph.addEventListener("pointermove", (event) => {
  if (!held) return;
  const [x, y] = place(event);
  graph.classList.add("held");
  look([box[0] + held[0] - x, box[1] + held[1] - y, box[2]]);
});
for (const end of ["pointerup", "pointerleave", "pointercancel"]) {
  graph.addEventListener(end, () => { held = null; graph.classList.remove("held"); });
}
const KEYS = {
  "+": () => zoom(0.8), "=": () => zoom(0.8), "-": () => zoom(1.25), 0: () => look(home),
  ArrowLeft: () => pan(-1, 0), ArrowRight: () => pan(1, 0), ArrowUp: () => pan(0, -1), ArrowDown: () => pan(0, 1),
};
const pan = (x, y) => look([box[0] + x * box[2] * 0.1, box[1] + y * box[3] * 0.1, box[2]]);
graph.addEventListener("keydown", (event) => {
  if (!KEYS[event.key] || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  KEYS[event.key]();
});

// --- rates: what there was at a moment ---

const rates = byId("rates");
const UNITS = [[1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]];
let moment = -1;

function time(nanoseconds) {
  const [size, unit] = UNITS.find(([least]) => nanoseconds >= least) ?? UNITS[3];
  return `${Number((nanoseconds / size).toPrecision(4))} ${unit}`;
}

function showMoment(at) {
  const { left, step, used, width } = rates.dataset;
  moment = Math.min(Math.max(at, 0), Number(used) - 1);
  const cursor = byId("cursor");
  cursor.setAttribute("x", Number(left) + moment * Number(step));
  cursor.setAttribute("visibility", "visible");
  const [sent, refused] = [data.rates.sent[moment], data.rates.refused[moment]];
  byId("moment").textContent = `From ${time(moment * Number(width))}: ${number(sent)} messages, ${number(refused)} refused.`;
}

rates?.addEventListener("pointermove", (event) => {
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(rates.getScreenCTM().inverse());
  showMoment(Math.floor((point.x - Number(rates.dataset.left)) / Number(rates.dataset.step)));
});
rates?.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by) return;
  event.preventDefault();
  showMoment(moment + by);
});

// --- tables that sort ---

function sortBy(head, column) {
  const falling = head.getAttribute("aria-sort") !== "descending";
  const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
  const body = head.closest("table").tBodies[0];
  const compare = (a, b) => key(a).localeCompare(key(b), "en", { numeric: true });
  const sorted = [...body.rows].sort((a, b) => (falling ? compare(b, a) : compare(a, b)));
  all("th", head.parentNode).forEach((each) => each.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", falling ? "descending" : "ascending");
  body.append(...sorted);
}

for (const row of all("thead tr")) {
  [...row.cells].forEach((head, column) => {
    const button = make("button", head.textContent);
    button.type = "button";
    button.addEventListener("click", () => sortBy(head, column));
    head.replaceChildren(button);
  });
}
