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
