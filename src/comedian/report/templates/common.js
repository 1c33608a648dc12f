// Shared by the pages: data, elements, times, files.
const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);

function make(name, properties = {}, ...children) {
  const { style = {}, ...others } = properties;
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(others)) {
    if (key in made) made[key] = value; else made.setAttribute(key, value);
  }
  for (const [key, value] of Object.entries(style)) made.style.setProperty(key, value);
  made.append(...children);
  return made;
}

const two = (number) => String(number).padStart(2, "0");
function clock(time_s, digits = 0) {
  // in whole units of the last digit, so that 59.96 becomes 1:00.0
  const units = Math.round(time_s * 10 ** digits), perMinute = 60 * 10 ** digits;
  const hours = Math.floor(units / perMinute / 60), minutes = Math.floor(units / perMinute) % 60;
  const seconds = ((units % perMinute) / 10 ** digits).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
  return hours ? `${hours}:${two(minutes)}:${seconds}` : `${minutes}:${seconds}`;
}
const percent = (part, whole) => `${(100 * Math.max(0, Math.min(part / whole, 1))).toFixed(4)}%`;
function save(name, type, text) {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  URL.revokeObjectURL(link.href);
}
const cell = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
