const halfOf = new Map(data.halves.map((half) => [half.half, half]));
const hasTruth = data.truths !== null;
const RESULTS = { hit: "hit", alarm: "false alarm", miss: "miss" };
const SUBTITLE_S = 3;
const LEAD_S = 3; // an event is played from so long before
const MAX_TICKS = 8; // in the part of a timeline that is seen
const TICK_STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];

const partName = (half) => (data.halves.length > 1 ? `Half ${half}` : "Video");
const hue = (label) => ((label * 137.5 + 250) % 360).toFixed(1);

// Every event and every missed annotation is an item with a row in the table and a mark on the timeline.
const items = data.spots.map((spot) => ({ ...spot, truth: null }));
for (const truth of data.truths ?? []) {
  if (truth.spot !== null) items[truth.spot].truth = truth;
}
for (const truth of data.truths ?? []) {
  // a hit whose score is filtered away is a miss again
  const partner = truth.spot === null ? null : data.spots[truth.spot];
  items.push({ ...truth, score: null, partner, picture: truth.picture ?? partner?.picture });
}
items.sort((a, b) => a.half - b.half || a.timestamp_s - b.timestamp_s);

function resultOf(item) {
  if (!hasTruth) return "";
  return item.score === null ? "miss" : item.truth ? "hit" : "alarm";
}

// ---- video ----
const video = find("video"), note = find("video-note");
let current = null; // the half in the player
let shown_s = null; // time of the frame on screen, on the player's clock
// a player's clock begins with the first stream; the page's, with the first picture
const inPlayer = (half, time_s) => time_s + (half.video?.offset_s ?? 0);

function tellProblem() {
  note.textContent = `This browser cannot play ${current.video.name}. Either the file is not at ${decodeURI(current.video.src)}, `
    + "seen from this page, or the browser does not know its format (most play MP4 with H.264). Everything else on this page "
    + "works. FFmpeg makes a copy that plays: ffmpeg -i VIDEO -c:v libx264 -c:a aac COPY.mp4";
}
function showHalf(half) {
  if (half === current) return;
  current = half;
  shown_s = null;
  note.textContent = "";
  video.src = half.video.src;
  video.playbackRate = Number(find("speed").value);
  for (const button of find("halves").children) button.ariaPressed = String(Number(button.value) === half.half);
  movePlayhead();
}
const playhead_s = () => video.currentTime - inPlayer(current, 0);
function movePlayhead() {
  for (const head of document.querySelectorAll(".playhead")) {
    head.hidden = Number(head.dataset.half) !== current.half;
    head.style.setProperty("--at", percent(playhead_s(), current.duration_s));
  }
  if (!video.paused) centre(current, playhead_s());
}
function seek(half, time_s, plays = false) {
  if (!half.video) return;
  const isNew = half !== current;
  showHalf(half);
  const go = () => {
    video.currentTime = inPlayer(half, time_s);
    // a browser may refuse, or the next click come first
    if (plays) video.play()?.catch(() => {});
  };
  if (!isNew && video.readyState) go();
  else video.addEventListener("loadedmetadata", go, { once: true });
}
function watchFrames() {
  video.requestVideoFrameCallback?.((_, frame) => {
    shown_s = frame.mediaTime;
    watchFrames();
  });
}
function stepFrames(count) {
  video.pause();
  const here_s = shown_s !== null && !video.seeking && Math.abs(shown_s - video.currentTime) < 1 ? shown_s : video.currentTime;
  // into the middle of the frame, or rounding shows another
  video.currentTime = Math.max(0, here_s + (count + 0.5) / current.video.fps);
}
video.addEventListener("error", tellProblem);
// sound alone: the picture's format is unknown to the browser
video.addEventListener("loadedmetadata", () => { if (!video.videoWidth) tellProblem(); });
for (const event of ["timeupdate", "seeking"]) video.addEventListener(event, movePlayhead);

// ---- selection ----
function select(item) {
  for (const other of document.querySelectorAll("[aria-current]")) other.removeAttribute("aria-current");
  for (const part of [item.row, item.mark]) part.setAttribute("aria-current", "true");
  const list = item.row.closest(".table");
  const top = item.row.offsetTop - (list.clientHeight - item.row.offsetHeight) / 2;
  list.scrollTo({ top, behavior: "instant" });
  rove(item);
  const half = halfOf.get(item.half);
  if (!half.video) centre(half, item.timestamp_s);
  seek(half, Math.max(0, item.timestamp_s - LEAD_S), true);
}
// one mark of each timeline can be reached with Tab, the others from it with the arrow keys
function rove(item) {
  for (const other of items) if (other.half === item.half) other.mark.tabIndex = other === item ? 0 : -1;
}

// ---- table and timelines ----
function describe(item) {
  const parts = [data.labels[item.label], `${data.halves.length > 1 ? `half ${item.half}, ` : ""}${clock(item.timestamp_s, 1)}`];
  if (item.score !== null) parts.push(`score ${item.score.toFixed(2)}`);
  if (hasTruth) parts.push(RESULTS[resultOf(item)]);
  if (item.visibility === "not shown") parts.push("not shown");
  return parts.join(", ");
}
function makeRow(item) {
  const picture = item.picture ? [make("img", { src: item.picture, alt: "", loading: "lazy" })] : [];
  const name = make("div", { className: "label of-label", style: { "--hue": hue(item.label) } },
    make("span", { className: "swatch" }), data.labels[item.label]);
  const result = hasTruth
    ? [make("span", { className: `result ${resultOf(item)}` }, RESULTS[resultOf(item)] + (item.visibility === "not shown" ? ", not shown" : ""))]
    : [];
  const time = (data.halves.length > 1 ? `${item.half} · ` : "") + clock(item.timestamp_s, 1);
  const button = make("button", { type: "button", ariaLabel: `Show ${describe(item)}` }, time);
  const score = item.score === null ? "–" : item.score.toFixed(2);
  item.row = make("tr", { onclick: () => select(item) },
    make("td", {}, ...picture), make("td", {}, name, ...result), make("td", {}, button), make("td", { className: "number" }, score));
  return item.row;
}
const curveOf = (half, label) => Uint8Array.from(atob(half.curves[label]), (letter) => letter.charCodeAt(0));
function makeMark(item, half, curve) {
  // a spot lies on its label's curve, which suppression and calibration do not change; what was missed, near the foot
  const place = Math.max(0, Math.min((item.timestamp_s - half.curve_begin_s) / half.curve_step_s, curve.length - 1));
  const [low, high] = [curve[Math.floor(place)], curve[Math.ceil(place)]];
  const depth = item.score === null ? "0.8" : (1 - (low + (high - low) * (place % 1)) / 255).toFixed(3);
  item.mark = make("button", {
    type: "button", className: `mark ${resultOf(item)}`, title: describe(item), ariaLabel: describe(item), tabIndex: -1,
    style: { "--at": percent(item.timestamp_s, half.duration_s), "--depth": depth },
  });
  item.mark.addEventListener("click", (event) => { event.stopPropagation(); select(item); });
  item.mark.item = item;
  return item.mark;
}
function makeCurve(half, bytes) {
  const end = half.curve_begin_s + half.curve_step_s * (bytes.length - 1);
  const points = Array.from(bytes, (value, index) => `${(half.curve_begin_s + half.curve_step_s * index).toFixed(2)} ${255 - value}`);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${half.duration_s} 255`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(svg.namespaceURI, "path");
  path.setAttribute("d", `M${half.curve_begin_s} 255 L${points.join(" ")} ${end} 255Z`);
  svg.append(path);
  return svg;
}
function makeLane(half, label) {
  const curve = curveOf(half, label);
  const track = make("div", { className: "track" }, makeCurve(half, curve));
  for (const item of items) {
    if (item.half !== half.half || item.label !== label) continue;
    if (item.score === null) {
      track.append(make("span", { className: "truth", style: { "--at": percent(item.timestamp_s, half.duration_s) } }));
    }
    track.append(makeMark(item, half, curve));
  }
  track.addEventListener("click", (event) => {
    const { left, width } = track.getBoundingClientRect();
    seek(half, half.duration_s * (event.clientX - left) / width);
  });
  const name = make("div", { className: "name", title: data.labels[label] }, data.labels[label]);
  return make("div", { className: "lane of-label", style: { "--hue": hue(label) }, "data-label": label }, name, track);
}
const zoom = () => Number(find("zoom").value);
function drawTicks(half) {
  const step_s = TICK_STEPS_S.find((step) => half.duration_s / zoom() / step <= MAX_TICKS) ?? TICK_STEPS_S.at(-1);
  half.ticks.replaceChildren();
  for (let time_s = 0; time_s < half.duration_s; time_s += step_s) {
    half.ticks.append(make("span", { style: { "--at": percent(time_s, half.duration_s) } }, clock(time_s)));
  }
}
// the middle of the part that is seen, beside the names of the lanes
const middle = (half) => (half.lanes.clientWidth - half.ticks.offsetLeft) / 2;
function centre(half, time_s) {
  if (zoom() > 1) half.lanes.scrollLeft = half.ticks.offsetWidth * time_s / half.duration_s - middle(half);
}
function changeZoom() {
  const centres_s = data.halves.map((half) =>
    half === current ? playhead_s() : half.duration_s * (half.lanes.scrollLeft + middle(half)) / half.ticks.offsetWidth);
  find("timelines").style.setProperty("--zoom", zoom());
  data.halves.forEach((half, index) => {
    drawTicks(half);
    centre(half, centres_s[index]);
  });
}
function makeTimeline(half) {
  half.ticks = make("div", { className: "ticks", ariaHidden: "true" });
  drawTicks(half);
  const strip = make("div", { className: "strip" }, ...data.labels.map((_, label) => makeLane(half, label)), half.ticks,
    make("div", { className: "playhead", "data-half": half.half, hidden: true }));
  const lanes = make("div", { className: "lanes", role: "group", ariaLabel: `Timeline, ${partName(half.half)}`, "aria-describedby": "help" }, strip);
  half.lanes = lanes;
  lanes.addEventListener("keydown", step);
  return make("div", { className: "half" }, ...(data.halves.length > 1 ? [make("h3", {}, partName(half.half))] : []), lanes);
}
function step(event) {
  const here = event.target.item;
  if (!here) return;
  const inTime = items.filter((item) => item.half === here.half && !item.mark.hidden);
  const inLane = (offset) => {
    const lanes = [...new Set(inTime.map((item) => item.label))].sort((a, b) => a - b);
    const lane = inTime.filter((item) => item.label === lanes[lanes.indexOf(here.label) + offset]);
    const distance = (item) => Math.abs(item.timestamp_s - here.timestamp_s);
    return lane.reduce((best, item) => (best && distance(best) <= distance(item) ? best : item), undefined);
  };
  const place = inTime.indexOf(here);
  const moves = {
    ArrowLeft: () => inTime[place - 1], ArrowRight: () => inTime[place + 1],
    Home: () => inTime[0], End: () => inTime.at(-1), ArrowUp: () => inLane(-1), ArrowDown: () => inLane(1),
  };
  if (!(event.key in moves)) return;
  event.preventDefault();
  const item = moves[event.key]();
  if (!item) return;
  rove(item);
  item.mark.focus();
}

// ---- filters ----
const chosen = (fieldset) => new Set([...find(fieldset).querySelectorAll("input:checked")].map((input) => input.value));
const isStrong = (item) => item.score >= Number(find("score").value);

function makeChip(value, text, isChecked, count) {
  const input = make("input", { type: "checkbox", value, checked: isChecked });
  input.addEventListener("change", filter);
  return make("label", {}, input, ...text, ...(count === undefined ? [] : [make("span", { className: "count" }, String(count))]));
}
function filter() {
  const labels = chosen("labels"), results = chosen("results");
  find("score-text").value = Number(find("score").value).toFixed(2);
  for (const item of items) {
    item.isCounted = item.score === null ? item.partner === null || !isStrong(item.partner) : isStrong(item);
    item.isShown = item.isCounted && labels.has(String(item.label)) && (!hasTruth || results.has(resultOf(item)));
    item.row.hidden = item.mark.hidden = !item.isShown;
  }
  for (const lane of document.querySelectorAll(".lane")) lane.hidden = !labels.has(lane.dataset.label);
  for (const half of data.halves) {
    const shown = items.filter((item) => item.isShown && item.half === half.half);
    if (shown.length && !shown.some((item) => item.mark.tabIndex === 0)) rove(shown[0]);
  }
  const spots = data.spots.length, shown = items.filter((item) => item.isShown);
  const misses = shown.filter((item) => item.score === null).length;
  find("shown").textContent = `${shown.length - misses} of ${spots} shown` + (hasTruth ? `, ${misses} missed` : "");
  countResults(labels);
}
function countResults(labels) {
  if (!hasTruth) return;
  const ratio = (part, whole) => (whole ? (part / whole).toFixed(2) : "–");
  const line = (name, counted) => {
    const count = (result) => counted.filter((item) => resultOf(item) === result).length;
    const [hits, misses, alarms] = ["hit", "miss", "alarm"].map(count);
    const numbers = [hits, misses, alarms, ratio(hits, hits + alarms), ratio(hits, hits + misses)];
    return make("tr", {}, make("th", { scope: "row" }, name), ...numbers.map((number) => make("td", { className: "number" }, String(number))));
  };
  const counted = items.filter((item) => item.isCounted && labels.has(String(item.label)));
  const used = data.labels.map((_, label) => label).filter((label) => labels.has(String(label)));
  find("truth").querySelector("tbody").replaceChildren(...used.map((label) => line(data.labels[label], counted.filter((item) => item.label === label))));
  find("truth").querySelector("tfoot").replaceChildren(line("All of these", counted));
}

// ---- export ----
const shownSpots = () => items.filter((item) => item.isShown && item.score !== null);
const ofCurrent = () => shownSpots().filter((item) => item.half === current.half);
function stamp(time_s, point) {
  const ms = Math.round(time_s * 1000), seconds = Math.floor(ms / 1000);
  return `${two(Math.floor(seconds / 3600))}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}${point}${String(ms % 1000).padStart(3, "0")}`;
}
const oneLine = (text) => text.replace(/\s+/g, " ");
const asJson = () => JSON.stringify({ UrlLocal: data.video_id, predictions: shownSpots().map((item) => item.prediction) }, null, 4) + "\n";
function asCsv() {
  const rows = shownSpots().map(({ half, prediction, timestamp_s }) => [half, prediction.label, Number(timestamp_s.toFixed(3)), prediction.gameTime.split(" - ")[1], prediction.confidence]);
  return [["half", "label", "timestamp_s", "game_time", "score"], ...rows].map((row) => row.map(cell).join(",") + "\n").join("");
}
function asSrt(spots, half) {
  const begin = (item) => inPlayer(half, item.timestamp_s);
  return spots.map((item, index) => `${index + 1}\n${stamp(begin(item), ",")} --> ${stamp(begin(item) + SUBTITLE_S, ",")}\n`
    + `${oneLine(data.labels[item.label])} (${item.score.toFixed(2)})\n\n`).join("");
}
function asChapters(spots, half) {
  // events of one instant are one chapter, which lasts until the next
  const names = new Map();
  for (const item of spots) {
    const begin = stamp(inPlayer(half, item.timestamp_s), ".");
    names.set(begin, [...(names.get(begin) ?? []), oneLine(data.labels[item.label])]);
  }
  const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const begins = [...names.keys()];
  const end = stamp(inPlayer(half, Math.max(half.duration_s, (spots.at(-1)?.timestamp_s ?? 0) + 1)), ".");
  const cues = begins.map((begin, index) => `${begin} --> ${begins[index + 1] ?? end}\n${escape(names.get(begin).join(", "))}\n`);
  return ["WEBVTT\n", ...cues].join("\n");
}
function exportsOf(half) {
  const spots = () => shownSpots().filter((item) => item.half === half.half);
  const part = data.halves.length > 1 ? `, half ${half.half}` : "";
  const stem = half.video?.name.replace(/\.[^.]*$/, "") ?? `half_${half.half}`;
  return [
    [`SRT subtitles${part}`, () => save(`${stem}.srt`, "application/x-subrip", asSrt(spots(), half))],
    [`WebVTT chapters${part}`, () => save(`${stem}.vtt`, "text/vtt", asChapters(spots(), half))],
  ];
}

// ---- the page ----
const numOf = (label) => data.spots.filter((spot) => spot.label === label).length;
const isUsed = (label) => items.some((item) => item.label === label);
find("labels").append(...data.labels.map((name, label) =>
  makeChip(String(label), [make("span", { className: "swatch of-label", style: { "--hue": hue(label) } }), name], isUsed(label) || !items.length, numOf(label))));
for (const [text, isChecked] of [["All", true], ["None", false]]) {
  find("labels").append(make("button", { type: "button", onclick: () => {
    for (const input of find("labels").querySelectorAll("input")) input.checked = isChecked;
    filter();
  } }, text));
}
if (hasTruth) {
  find("results").hidden = find("truth").hidden = false;
  find("results").append(...Object.entries({ hit: "● hits", alarm: "○ false alarms", miss: "◇ misses" }).map(([value, text]) => makeChip(value, [text], true)));
  find("truth-note").textContent = `A hit lies within ±${data.tolerance_s / 2} s of a label's event (a window of ${data.tolerance_s} s) and each event takes `
    + "one: in order of time, the best-scored one left, as in the official score. Of the events that the score filter keeps. "
    + "Short lines at the foot of the timeline are the labels.";
}
find("events").tBodies[0].append(...items.map(makeRow));
find("timelines").append(...data.halves.map(makeTimeline));
const wholeMatch = [
  ["JSON", () => save("events.json", "application/json", asJson())],
  ["CSV", () => save("events.csv", "text/csv", asCsv())],
];
find("exports").append(...[...wholeMatch, ...data.halves.flatMap(exportsOf)].map(([name, action]) =>
  make("button", { type: "button", onclick: action }, name)));
find("score").addEventListener("input", filter);
find("zoom").addEventListener("change", changeZoom);
find("speed").addEventListener("change", () => { video.playbackRate = Number(find("speed").value); });
for (const button of document.querySelectorAll("[data-frames]")) {
  button.addEventListener("click", () => stepFrames(Number(button.dataset.frames)));
}
for (const button of document.querySelectorAll("[data-move]")) {
  button.addEventListener("click", () => { video.currentTime = Math.max(0, video.currentTime + Number(button.dataset.move)); });
}
document.addEventListener("keydown", (event) => {
  const steps = { ",": -1, ".": 1 };
  if (!(event.key in steps) || !current || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
  event.preventDefault();
  stepFrames(steps[event.key]);
});
watchFrames();
filter();
const playable = data.halves.filter((half) => half.video);
find("player").hidden = !playable.length;
if (playable.length) {
  if (playable.length > 1) {
    find("halves").append(...playable.map((half) =>
      make("button", { type: "button", value: half.half, onclick: () => showHalf(half) }, partName(half.half))));
  }
  showHalf(playable[0]);
}
