// Panels of one set of predictions or of one label: only those that are chosen are shown.
const choices = ["set", "label"].map((name) => [name, document.getElementById(name)]).filter(([, choice]) => choice);
const show = () => {
  for (const panel of document.querySelectorAll("[data-set], [data-label]"))
    panel.hidden = choices.some(([name, choice]) => name in panel.dataset && panel.dataset[name] !== choice.value);
};
for (const [, choice] of choices) choice.addEventListener("change", show);
show();

for (const button of document.querySelectorAll("[data-open]")) {
  button.addEventListener("click", () => {
    document.getElementById("label").value = button.dataset.open;
    show();
    document.getElementById("closer").scrollIntoView();
    document.getElementById("label").focus({ preventScroll: true });
  });
}

// A click on a column's head sorts by it, from the highest, names from A; another click turns it round.
const worth = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
for (const head of document.querySelectorAll("th[aria-sort]")) {
  head.firstElementChild.addEventListener("click", () => {
    const body = head.closest("table").tBodies[0];
    const rows = [...body.rows];
    const isNumber = head.classList.contains("number");
    const down = head.ariaSort === "none" ? isNumber : head.ariaSort === "ascending";
    const compare = isNumber
      ? (a, b) => worth(a, head.cellIndex) - worth(b, head.cellIndex)
      : (a, b) => worth(a, head.cellIndex).localeCompare(worth(b, head.cellIndex));
    rows.sort((a, b) => (down ? compare(b, a) : compare(a, b)));
    for (const other of head.parentElement.cells) if (other.ariaSort) other.ariaSort = "none";
    head.ariaSort = down ? "descending" : "ascending";
    body.append(...rows);
  });
}
