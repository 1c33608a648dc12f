// An event: { id, video, label, time_s, score, team, visibility, comment, status }; `video` is an index, `label` a name,
// `status` is "proposed" (found by a model, not reviewed) or "confirmed". Times count from the first frame that the file shows.
const STORAGE_KEY = `comedian-label:${data.id}`;
const LABEL_KEYS = "1234567890qwertyuiopasdfghjklzxcvb";
const MAX_UNDO = 500;
const CHECKED_WITHIN_S = 5;

const initialState = () => ({
  labels: [...data.labels],
  events: data.events.map((event, id) => ({ ...event, id })),
  empty: [],
  nextId: data.events.length,
});
let state = initialState(), selected = null, past = [], future = [];

const video = find("video"), note = find("video-note");
let current = data.videos[0];
let shown_s = 0; // time of the frame on screen

const hue = (label) => ((state.labels.indexOf(label) * 137.5 + 250) % 360).toFixed(1);
const rounded = (time_s) => Math.round(time_s * 1000) / 1000;
const indexOf = (item) => data.videos.indexOf(item);
const byTime = (a, b) => a.video - b.video || a.time_s - b.time_s || a.id - b.id;
const say = (text) => { find("said").textContent = text; };

// ---- changes: every one can be undone and is stored ----
function change(text, action) {
  past.push(JSON.stringify(state));
  if (past.length > MAX_UNDO) past.shift();
  future = [];
  action();
  keep();
  say(text);
}
function keep() {
  try {
    localStorage.setItem(STORAGE_KEY, JSON.stringify(state));
  } catch (error) {
    find("file-note").textContent = `This browser does not store changes (${error.name}): export a file before you close the page.`;
  }
  draw();
}
function travel(from, to, text) {
  if (!from.length) return;
  to.push(JSON.stringify(state));
  state = JSON.parse(from.pop());
  if (!state.events.some((event) => event.id === selected)) selected = null;
  keep();
  say(text);
}
const undo = () => travel(past, future, "Undone");
const redo = () => travel(future, past, "Redone");
const chosen = () => state.events.find((event) => event.id === selected);

function addEvent(label) {
  const time_s = now_s();
  const made = { id: state.nextId, video: indexOf(current), label, time_s, score: null, team: "", visibility: "visible", comment: "", status: "confirmed" };
  change(`${label} added at ${clock(time_s, 1)}`, () => {
    state.nextId += 1;
    state.events.push(made);
    state.empty = state.empty.filter((index) => index !== made.video);
    selected = made.id;
  });
}
function editSelected(text, fields) {
  const event = chosen();
  if (!event) return;
  change(text, () => Object.assign(event, fields, { status: "confirmed" }));
}
function remove() {
  const event = chosen();
  if (!event) return;
  const after = visibleEvents().filter((other) => byTime(other, event) > 0)[0];
  change(`${event.label} deleted`, () => {
    state.events = state.events.filter((other) => other !== event);
    selected = after?.id ?? null;
  });
}
function moveSelected(time_s) {
  const event = chosen();
  if (event) editSelected(`${event.label} moved to ${clock(bounded(time_s), 2)}`, { time_s: bounded(time_s) });
}
function addLabel(name) {
  const label = name.replace(/\s+/g, " ").trim();
  if (!label || state.labels.includes(label)) return;
  change(`Label ${label} added`, () => state.labels.push(label));
}

// ---- video ----
const bounded = (time_s) => rounded(Math.max(0, Math.min(time_s, current.duration_s)));
const player_s = () => video.currentTime - current.begin_s;
const now_s = () => bounded(!video.seeking && Math.abs(shown_s - player_s()) < 1 ? shown_s : player_s());

function watchFrames() {
  if (!video.requestVideoFrameCallback) return;
  video.requestVideoFrameCallback((_, frame) => {
    shown_s = frame.mediaTime - current.begin_s;
    movePlayhead();
    watchFrames();
  });
}
function showVideo(item) {
  if (item === current && video.src) return;
  current = item;
  note.textContent = "";
  shown_s = 0;
  video.src = item.src;
  for (const button of find("videos").children) button.ariaPressed = String(Number(button.value) === indexOf(item));
  draw();
}
function seek(item, time_s) {
  const isNew = item !== current;
  showVideo(item);
  // a little later than the frame begins, or rounding shows the one before
  const place = item.begin_s + Math.max(0, time_s) + 0.25 / item.fps;
  if (!isNew && video.readyState) video.currentTime = place;
  else video.addEventListener("loadedmetadata", () => { video.currentTime = place; }, { once: true });
}
const move = (seconds) => seek(current, bounded(now_s() + seconds));
function stepFrames(count) {
  video.pause();
  video.currentTime = current.begin_s + Math.max(0, now_s() + (count + 0.5) / current.fps);
}
const toggle = () => (video.paused ? video.play() : video.pause());
function setSpeed(step) {
  const speed = find("speed");
  speed.selectedIndex = Math.max(0, Math.min(speed.options.length - 1, speed.selectedIndex + step));
  video.playbackRate = Number(speed.value);
}
function movePlayhead() {
  find("now").textContent = clock(Math.max(0, now_s()), 2);
  const head = find("playhead");
  if (!head) return;
  head.style.setProperty("--at", percent(now_s(), current.duration_s));
  const lanes = find("lanes"), strip = find("strip");
  if (!video.paused && strip.clientWidth > lanes.clientWidth) {
    lanes.scrollLeft = strip.clientWidth * now_s() / current.duration_s - lanes.clientWidth / 2;
  }
}

// ---- selection ----
function select(event, moves = true) {
  selected = event?.id ?? null;
  if (event && moves) { video.pause(); seek(data.videos[event.video], event.time_s); }
  draw();
}
function visibleEvents() {
  const label = find("only-label").value, status = find("only-status").value;
  return state.events.filter((event) => (!label || event.label === label) && (!status || event.status === status)).sort(byTime);
}
function selectNeighbour(offset) {
  const events = visibleEvents();
  const place = events.findIndex((event) => event.id === selected);
  const next = place < 0
    ? events.find((event) => byTime(event, { video: indexOf(current), time_s: now_s(), id: -1 }) >= 0) ?? events.at(-1)
    : events[place + offset];
  if (next) select(next);
}
// the proposals that a model is least certain of come first
const doubt = (event) => Math.abs((event.score ?? 0.5) - 0.5);
function selectNextToReview() {
  const waiting = state.events.filter((event) => event.status === "proposed");
  if (!waiting.length) { say("Every event is reviewed"); return; }
  select(waiting.reduce((best, event) => (doubt(event) < doubt(best) || (doubt(event) === doubt(best) && byTime(event, best) < 0) ? event : best)));
}
function accept() {
  if (!chosen()) return;
  editSelected(`${chosen().label} confirmed`, {});
  selectNextToReview();
}

// ---- drawing ----
function draw() {
  drawLabels();
  drawRows();
  drawEditor();
  drawTimeline();
  const waiting = state.events.filter((event) => event.status === "proposed").length;
  find("counts").textContent = `${state.events.length} events${waiting ? `, ${waiting} to review` : ""}`;
  find("undo").disabled = !past.length;
  find("redo").disabled = !future.length;
  for (const input of find("empty").querySelectorAll("input")) input.checked = state.empty.includes(Number(input.value));
  for (const button of find("moments").children) {
    const moment = data.moments[button.value];
    const near = state.events.some((event) => event.video === moment.video && event.status === "confirmed" && Math.abs(event.time_s - moment.time_s) <= CHECKED_WITHIN_S);
    button.ariaPressed = String(near);
  }
  movePlayhead();
}
function fill(select, names) {
  const value = select.value;
  const first = [...select.options].filter((option) => option.value === "" && select.id);
  select.replaceChildren(...first, ...names.map((name) => make("option", { value: name }, name)));
  select.value = names.includes(value) ? value : select.options[0]?.value ?? "";
}
function drawLabels() {
  find("add").replaceChildren(...state.labels.map((label, index) => {
    const key = LABEL_KEYS[index];
    return make("button", { type: "button", className: "of-label", style: { "--hue": hue(label) }, ariaLabel: `Add ${label}`, onclick: () => addEvent(label) },
      ...(key ? [make("kbd", {}, key.toUpperCase())] : []), label);
  }));
  fill(find("only-label"), state.labels);
  fill(find("edit").elements.label, state.labels);
}
function drawRows() {
  find("events").tBodies[0].replaceChildren(...visibleEvents().map((event) => {
    const place = (data.videos.length > 1 ? `${event.video + 1} · ` : "") + clock(event.time_s, 1);
    const button = make("button", { type: "button", ariaLabel: `Select ${event.label}, ${place}` }, place);
    const row = make("tr", { className: event.status, onclick: () => select(event) },
      make("td", {}, button),
      make("td", {}, make("span", { className: "label of-label", style: { "--hue": hue(event.label) } }, make("span", { className: "swatch" }), event.label)),
      make("td", { className: "status" }, event.status === "proposed" ? "to review" : "confirmed"),
      make("td", { className: "number" }, event.score === null ? "–" : event.score.toFixed(2)));
    if (event.id === selected) row.setAttribute("aria-current", "true");
    return row;
  }));
  find("events").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
}
function drawEditor() {
  const form = find("edit"), event = chosen();
  form.hidden = !event;
  if (!event) return;
  const fields = form.elements;
  fields.label.value = event.label;
  if (document.activeElement !== fields.time_s) fields.time_s.value = String(event.time_s);
  if (![...fields.team.options].some((option) => option.value === event.team)) fields.team.append(make("option", { value: event.team }, event.team));
  fields.team.value = event.team;
  fields.not_shown.checked = event.visibility === "not shown";
  fields.comment.value = event.comment;
  find("accept").textContent = event.status === "proposed" ? "Confirm" : "Confirmed";
}
function drawTimeline() {
  const events = visibleEvents().filter((event) => event.video === indexOf(current));
  const labels = state.labels.filter((label) => events.some((event) => event.label === label));
  const lanes = labels.map((label) => make("div", { className: "lane of-label", style: { "--hue": hue(label) } },
    make("div", { className: "name", title: label }, label),
    make("div", { className: "track" }, ...events.filter((event) => event.label === label).map(makeMark))));
  const zoom = Number(find("zoom").value);
  const step_s = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800].find((step) => current.duration_s / zoom / step <= 8) ?? 3600;
  const ticks = make("div", { className: "ticks", ariaHidden: "true" });
  for (let time_s = 0; time_s < current.duration_s; time_s += step_s) {
    ticks.append(make("span", { style: { "--at": percent(time_s, current.duration_s) } }, clock(time_s)));
  }
  find("strip").replaceChildren(...lanes, ticks, make("div", { className: "playhead", id: "playhead" }));
}
function makeMark(event) {
  const text = `${event.label}, ${clock(event.time_s, 1)}, ${event.status === "proposed" ? "to review" : "confirmed"}`;
  const mark = make("button", { type: "button", className: `mark ${event.status}`, title: text, ariaLabel: text, style: { "--at": percent(event.time_s, current.duration_s) } });
  if (event.id === selected) mark.setAttribute("aria-current", "true");
  let dragged_s = null;
  mark.addEventListener("pointerdown", (down) => { mark.setPointerCapture(down.pointerId); dragged_s = null; });
  mark.addEventListener("pointermove", (moved) => {
    if (!mark.hasPointerCapture(moved.pointerId)) return;
    const { left, width } = mark.parentElement.getBoundingClientRect();
    dragged_s = bounded(current.duration_s * (moved.clientX - left) / width);
    mark.style.setProperty("--at", percent(dragged_s, current.duration_s));
    seek(current, dragged_s);
  });
  mark.addEventListener("pointerup", () => {
    selected = event.id;
    if (dragged_s === null) select(event); else moveSelected(dragged_s);
  });
  mark.addEventListener("click", (click) => { click.stopPropagation(); if (click.detail === 0) select(event); });
  return mark;
}

// ---- files ----
function exported() {
  const all = find("with-proposed").checked;
  const events = state.events.filter((event) => all || event.status === "confirmed").sort(byTime);
  const left = state.events.length - events.length;
  find("file-note").textContent = `${events.length} events exported.${left ? ` ${left} are not reviewed and were omitted.` : ""}`;
  return data.videos.map((item, index) => ({ item, events: events.filter((event) => event.video === index), isEmpty: state.empty.includes(index) }))
    .filter((part) => part.events.length || part.isEmpty);
}
function asCsv() {
  const columns = ["video", "label", "time_s", "team", "visibility", "comment"];
  const rows = exported().flatMap(({ item, events }) => (events.length
    ? events.map((event) => [item.name, event.label, event.time_s, event.team, event.visibility, event.comment])
    : [[item.name, "", "", "", "", ""]]));
  return [columns, ...rows].map((row) => row.map(cell).join(",") + "\n").join("");
}
function asJson() {
  const videos = exported().map(({ item, events }) => ({
    video: item.name,
    duration_s: item.duration_s,
    events: events.map(({ label, time_s, team, visibility, comment }) => ({ label, time_s, visibility, ...(team && { team }), ...(comment && { comment }) })),
  }));
  return JSON.stringify({ labels: state.labels, videos }, null, 1) + "\n";
}
function parseCsv(text) {
  const rows = [[]];
  for (const [, quoted, plain, end] of text.replace(/^\ufeff/, "").matchAll(/(?:"((?:[^"]|"")*)"|([^,\r\n]*))(,|\r?\n|$)/g)) {
    rows.at(-1).push((quoted === undefined ? plain : quoted.replaceAll('""', '"')).trim());
    if (end !== ",") rows.push([]);
  }
  const [head, ...body] = rows.filter((row) => row.some((value) => value !== ""));
  for (const name of ["video", "label", "time_s"]) if (!head?.includes(name)) throw new Error(`no column ${name}; found ${head?.join(", ") ?? "nothing"}`);
  return body.map((row) => Object.fromEntries(head.map((name, index) => [name, row[index] ?? ""])));
}
function parseJson(text) {
  const content = JSON.parse(text);
  if (!Array.isArray(content.videos)) throw new Error("no list `videos`: give a file that this page or `comedian spot` wrote");
  return content.videos.flatMap(({ video: name, events = [] }) => events.map((event) => ({ video: name, ...event })));
}
function importEvents(name, text) {
  const items = name.toLowerCase().endsWith(".json") ? parseJson(text) : parseCsv(text);
  const imported = items.filter((item) => item.label).map((item) => {
    const index = data.videos.findIndex((known) => known.name === item.video);
    const time_s = Number(item.time_s);
    if (index < 0) throw new Error(`video ${item.video} is not on this page`);
    if (!(time_s >= 0 && time_s <= data.videos[index].duration_s)) throw new Error(`time_s ${item.time_s} is not within ${item.video}`);
    const score = item.score === undefined || item.score === "" ? null : Number(item.score);
    return { video: index, label: item.label, time_s: rounded(time_s), score, team: item.team ?? "", visibility: item.visibility || "visible",
      comment: item.comment ?? "", status: score === null ? "confirmed" : "proposed" };
  });
  const same = (a, b) => a.video === b.video && a.label === b.label && a.time_s === b.time_s;
  const fresh = imported.filter((item) => !state.events.some((event) => same(event, item)));
  change(`${fresh.length} events imported`, () => {
    for (const item of fresh) {
      if (!state.labels.includes(item.label)) state.labels.push(item.label);
      state.events.push({ ...item, id: state.nextId });
      state.nextId += 1;
    }
  });
  find("file-note").textContent = `${fresh.length} events imported, ${imported.length - fresh.length} were there already.`;
}

// ---- keys ----
const KEYS = {
  " ": ["Space", "play or pause", toggle],
  ",": [",", "one frame back", () => stepFrames(-1)],
  ".": [".", "one frame on", () => stepFrames(1)],
  ArrowLeft: ["← / Shift ←", "1 s / 5 s back", (event) => move(event.shiftKey ? -5 : -1)],
  ArrowRight: ["→ / Shift →", "1 s / 5 s on", (event) => move(event.shiftKey ? 5 : 1)],
  PageUp: ["Page up", "30 s back", () => move(-30)],
  PageDown: ["Page down", "30 s on", () => move(30)],
  "[": ["[", "slower", () => setSpeed(-1)],
  "]": ["]", "faster", () => setSpeed(1)],
  ArrowUp: ["↑", "previous event", () => selectNeighbour(-1)],
  ArrowDown: ["↓", "next event", () => selectNeighbour(1)],
  n: ["N", "next event to review, the least certain first", selectNextToReview],
  Enter: ["Enter", "confirm the selected event", accept],
  m: ["M", "move the selected event to the current time", () => moveSelected(now_s())],
  "<": ["<", "selected event one frame earlier", () => nudge(-1)],
  ">": [">", "selected event one frame later", () => nudge(1)],
  Delete: ["Delete", "delete the selected event", remove],
  Backspace: ["Backspace", "delete the selected event", remove],
  Escape: ["Escape", "select nothing", () => select(null)],
};
function nudge(frames) {
  const event = chosen();
  if (!event) return;
  moveSelected(event.time_s + frames / data.videos[event.video].fps);
  seek(data.videos[event.video], chosen().time_s);
}
function onKey(event) {
  const target = event.target;
  if (target.matches("input:not([type=checkbox]), select, textarea")) return;
  if ((event.ctrlKey || event.metaKey) && !event.altKey) {
    const key = event.key.toLowerCase();
    const action = key === "y" || (key === "z" && event.shiftKey) ? redo : key === "z" ? undo : null;
    if (action) { event.preventDefault(); action(); }
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  // Space and Enter press the button that has the focus
  if ((event.key === " " || event.key === "Enter") && target.matches("button, [type=checkbox]")) return;
  const label = state.labels[LABEL_KEYS.indexOf(event.key.toLowerCase())];
  const action = KEYS[event.key]?.[2] ?? KEYS[event.key.toLowerCase()]?.[2] ?? (label && (() => addEvent(label)));
  if (!action) return;
  event.preventDefault();
  action(event);
}

// ---- the page ----
function restore() {
  let stored = null;
  try {
    stored = JSON.parse(localStorage.getItem(STORAGE_KEY));
  } catch { /* nothing is stored, or storage is not allowed: `keep` reports that */ }
  if (!stored) return;
  state = stored;
  find("restored").hidden = false;
  find("restored").textContent = "Your changes from the last visit are restored. “Discard all changes” at the foot of the page returns to the events that the page came with.";
}
function cannotPlay() {
  note.textContent = `This browser cannot play ${current.src}. Check that the file is there, or use another browser.`;
}
function changeTime() {
  const field = find("edit").elements.time_s;
  const time_s = Number(field.value.replace(",", "."));
  const isValid = field.value.trim() !== "" && time_s >= 0 && time_s <= data.videos[chosen().video].duration_s;
  field.ariaInvalid = String(!isValid);
  if (isValid) { moveSelected(time_s); seek(data.videos[chosen().video], time_s); }
}

restore();
document.addEventListener("keydown", onKey);
// a button that was clicked does not keep the focus, or Space would press it again
document.addEventListener("click", (event) => { if (event.detail) event.target.closest("button")?.blur(); });
for (const button of document.querySelectorAll("[data-move]")) button.addEventListener("click", () => move(Number(button.dataset.move)));
for (const button of document.querySelectorAll("[data-frames]")) button.addEventListener("click", () => stepFrames(Number(button.dataset.frames)));
for (const [id, action] of Object.entries({ play: toggle, undo, redo, next: selectNextToReview, accept, delete: remove, here: () => moveSelected(now_s()) })) {
  find(id).addEventListener("click", action);
}
video.addEventListener("play", () => { find("play").textContent = "Pause"; });
video.addEventListener("pause", () => { find("play").textContent = "Play"; });
video.addEventListener("timeupdate", movePlayhead);
video.addEventListener("error", cannotPlay);
find("speed").addEventListener("change", () => setSpeed(0));
find("zoom").addEventListener("change", () => { find("lanes").style.setProperty("--zoom", find("zoom").value); draw(); });
for (const id of ["only-label", "only-status"]) find(id).addEventListener("change", draw);
find("new-label").addEventListener("submit", (event) => { event.preventDefault(); addLabel(event.target.elements.name.value); event.target.reset(); });
find("edit").addEventListener("submit", (event) => { event.preventDefault(); changeTime(); });
const fields = find("edit").elements;
fields.label.addEventListener("change", () => editSelected(`Label changed to ${fields.label.value}`, { label: fields.label.value }));
fields.time_s.addEventListener("change", changeTime);
fields.team.addEventListener("change", () => editSelected("Team changed", { team: fields.team.value }));
fields.not_shown.addEventListener("change", () => editSelected("Visibility changed", { visibility: fields.not_shown.checked ? "not shown" : "visible" }));
fields.comment.addEventListener("change", () => editSelected("Comment changed", { comment: fields.comment.value }));
find("export-csv").addEventListener("click", () => save("events.csv", "text/csv", asCsv()));
find("export-json").addEventListener("click", () => save("events.json", "application/json", asJson()));
find("import").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  try {
    importEvents(file.name, await file.text());
  } catch (error) {
    find("file-note").textContent = `${file.name} was not imported: ${error.message}`;
  }
});
find("restart").addEventListener("click", () => change("All changes discarded", () => { state = initialState(); selected = null; }));
find("videos").append(...(data.videos.length > 1 ? data.videos : []).map((item) =>
  make("button", { type: "button", value: indexOf(item), onclick: () => showVideo(item) }, item.name)));
find("empty").append(...data.videos.map((item, index) => make("label", {}, make("input", { type: "checkbox", value: index, onchange: (event) => {
  change("Videos without events changed", () => { state.empty = event.target.checked ? [...state.empty, index] : state.empty.filter((other) => other !== index); });
} }), item.name)));
find("suggested").hidden = !data.moments.length;
find("moments").append(...data.moments.map((moment, index) => make("button", { type: "button", value: index, onclick: () => {
  video.pause();
  seek(data.videos[moment.video], moment.time_s);
} }, (data.videos.length > 1 ? `${moment.video + 1} · ` : "") + clock(moment.time_s, 1))));
find("keys").append(...Object.values(KEYS).map(([name, text]) => make("div", {}, make("dt", {}, make("kbd", {}, name)), make("dd", {}, text))));
watchFrames();
showVideo(data.videos[0]);
draw();
