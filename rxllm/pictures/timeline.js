// Moves the timeline: zoom, and what a chunk or a wait is. The times of the picture's parts are in their attributes.
const data = JSON.parse(document.getElementById("data").textContent);
const svg = document.querySelector("svg.rxllm-timeline");
const tip = document.getElementById("tip");
const { left, track, span, top, row: height } = data;
let from = 0, to = span;
for (const row of data.rows) {
  for (const kind of ["d", "a"]) {
    let time = 0;
    row[kind] = row[kind].map(([after, count, text]) => ({ time: (time += after), count, text }));
  }
  row.all = [...row.a, ...row.d].sort((one, other) => one.time - other.time);
}

const x = (time) => left + ((time - from) / (to - from)) * track;
const visible = (place) => place >= left - 0.5 && place <= left + track + 0.5;
const show = (element, yes) => { element.style.display = yes ? "" : "none"; };

function seconds(value) {
  if (value < 0.0005) return `${Math.round(value * 1e6)} µs`;
  if (value < 0.9995) return `${(value * 1000).toFixed(value < 0.01 ? 1 : 0)} ms`;
  if (value < 59.95) return `${+value.toFixed(3)} s`;
  return `${Math.floor(value / 60)}:${String(Math.floor(value % 60)).padStart(2, "0")} min`;
}

function dots(row, kind) {
  let last = -Infinity, path = "";
  for (const { time } of row[kind]) {
    const place = x(time);
    if (visible(place) && place - last >= 1) {
      path += `M${place.toFixed(1)} ${row.y}h0`;
      last = place;
    }
  }
  return path;
}

function axis() {
  const group = svg.querySelector("[data-axis]"), bottom = +group.dataset.axis;
  const least = (to - from) / (track / 90), power = 10 ** Math.floor(Math.log10(least));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= least);
  group.replaceChildren();
  for (let number = Math.ceil(from / step); number * step <= to; number++) {
    const place = x(number * step);
    const line = document.createElementNS(svg.namespaceURI, "path");
    line.setAttribute("class", "g");
    line.setAttribute("d", `M${place} ${top}V${bottom}`);
    const label = document.createElementNS(svg.namespaceURI, "text");
    label.setAttribute("class", "s m");
    label.setAttribute("x", place);
    label.setAttribute("y", bottom + 14);
    label.textContent = number === 0 ? "0 s" : seconds(number * step);
    group.append(line, label);
  }
}

function draw() {
  axis();
  for (const part of svg.querySelectorAll("[data-b]")) {
    const start = Math.max(x(+part.dataset.a), left), end = Math.min(x(+part.dataset.b), left + track);
    show(part, start <= end && end >= left && start <= left + track);
    part.setAttribute("d", `M${start} ${part.dataset.y}H${end}`);
  }
  for (const part of svg.querySelectorAll("[data-t]")) {
    const place = x(+part.dataset.t);
    show(part, visible(place));
    if (part.dataset.y) part.setAttribute("transform", `translate(${place} ${part.dataset.y})`);
    else part.setAttribute("x", place);
  }
  for (const part of svg.querySelectorAll("[data-dots]")) {
    const kind = part.dataset.dots;
    show(part, kind !== "h" || (from === 0 && to === span));  // the halos are those of the whole
    if (kind !== "h") part.setAttribute("d", dots(data.rows.find((row) => row.y === +part.dataset.row), kind));
  }
}

function zoom(start, end) {
  const length = Math.min(Math.max(end - start, span / 1e5), span);
  from = Math.min(Math.max(start, 0), span - length);
  to = from + length;
  draw();
}

const timeAt = (event) => {
  const box = svg.getBoundingClientRect(), scale = data.width / box.width;
  return from + (((event.clientX - box.left) * scale - left) / track) * (to - from);
};
const rowAt = (event) => {
  const box = svg.getBoundingClientRect(), scale = data.width / box.width;
  return data.rows[Math.floor(((event.clientY - box.top) * scale - top) / height)];
};
const around = (factor, middle = (from + to) / 2) =>
  zoom(middle - (middle - from) * factor, middle + (to - middle) * factor);

function told(event) {
  const row = rowAt(event), time = timeAt(event);
  if (!row) return [];
  const all = row.all, near = ((to - from) / track) * 8;
  const index = all.reduce((best, dot, place) =>
    Math.abs(dot.time - time) < Math.abs((all[best]?.time ?? Infinity) - time) ? place : best, -1);
  if (index >= 0 && Math.abs(all[index].time - time) <= near) {
    const dot = all[index], number = all.slice(0, index).reduce((sum, each) => sum + each.count, 1);
    const numbers = dot.count > 1 ? `chunks ${number} to ${number + dot.count - 1}` : `chunk ${number}`;
    const after = index ? `, ${seconds(dot.time - all[index - 1].time)} after the one before` : "";
    return [`${numbers} at ${seconds(dot.time)}${after}`, dot.text].filter(Boolean);
  }
  const spans = row.spans.filter(([start, end]) => start <= time && time <= end && time >= from && time <= to);
  return [row.name, ...(spans.length ? spans.map(([start, end, what]) => `${what}: ${seconds(end - start)}`) : row.said)].filter(Boolean);
}

let held = null;
svg.addEventListener("pointermove", (event) => {
  const lines = told(event);
  tip.hidden = !lines.length;
  tip.textContent = lines.join("\n");
  tip.style.left = `${Math.min(event.pageX + 14, document.documentElement.clientWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${event.pageY + 16}px`;
});
svg.addEventListener("pointerleave", () => { tip.hidden = true; });
svg.addEventListener("pointerdown", (event) => {
  held = timeAt(event);
  event.preventDefault();  // selects no text
});
addEventListener("pointerup", (event) => {
  const end = held === null ? null : timeAt(event), start = held;
  held = null;
  if (end !== null && Math.abs(x(end) - x(start)) > 6) zoom(Math.min(start, end), Math.max(start, end));
});
svg.addEventListener("dblclick", () => zoom(0, span));
svg.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  around(event.deltaY > 0 ? 1.25 : 0.8, timeAt(event));
}, { passive: false });
const actions = {
  "+": () => around(0.5),
  "-": () => around(2),
  "0": () => zoom(0, span),
  ArrowLeft: () => zoom(from - (to - from) / 4, to - (to - from) / 4),
  ArrowRight: () => zoom(from + (to - from) / 4, to + (to - from) / 4),
};
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const action = actions[event.key];
  if (action) action();
});
for (const button of document.querySelectorAll("button[data-key]")) {
  button.addEventListener("click", () => actions[button.dataset.key]());
}
