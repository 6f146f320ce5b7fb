"use strict";
(() => {
  const table = document.getElementById("layer-table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const headers = [...table.querySelectorAll("th[data-key]")];
  const [search, show, order] = ["search", "show", "order"].map((id) => document.getElementById(id));
  const said = document.getElementById("said");
  let sorted = { header: headers[0], direction: "ascending" };

  const cell = (row, key) => row.querySelector(`[data-column="${key}"]`).dataset.sort;
  const compare = (a, b) => {
    // What has no number comes last, whatever the direction.
    if (a === "" || b === "") return (a === "") - (b === "");
    const [x, y] = [Number(a), Number(b)];
    const sign = sorted.direction === "ascending" ? 1 : -1;
    if (!Number.isNaN(x) && !Number.isNaN(y)) return sign * (x - y);
    return sign * a.localeCompare(b, undefined, { numeric: true });
  };
  const word = (header) => header.dataset.label;

  function update() {
    const wanted = search.value.trim().toLowerCase();
    const flag = show.value;
    let visible = 0;
    for (const row of rows) {
      const named = row.dataset.name.toLowerCase().includes(wanted);
      row.hidden = !(named && (flag === "" || row.dataset.flags.split(" ").includes(flag)));
      visible += row.hidden ? 0 : 1;
    }
    for (const header of headers) {
      header.setAttribute("aria-sort", header === sorted.header ? sorted.direction : "none");
    }
    order.value = `${sorted.header.dataset.key} ${sorted.direction}`;
    said.textContent = `${visible} of ${rows.length} layers, by ${word(sorted.header)}, ${sorted.direction}`;
  }
  function sort(header, direction) {
    sorted = { header, direction };
    const key = header.dataset.key;
    rows.sort((a, b) => compare(cell(a, key), cell(b, key)));
    body.append(...rows);
    update();
  }

  for (const header of headers) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.setAttribute("aria-label", word(header)); // "exact" alone does not say of which value
    header.append(button);
    button.addEventListener("click", () => {
      const again = header === sorted.header && sorted.direction === header.dataset.first;
      const other = header.dataset.first === "descending" ? "ascending" : "descending";
      sort(header, again ? other : header.dataset.first);
    });
    for (const direction of ["ascending", "descending"]) {
      const option = document.createElement("option");
      option.value = `${header.dataset.key} ${direction}`;
      option.textContent = `${word(header)}, ${direction}`;
      order.append(option);
    }
  }
  order.addEventListener("change", () => {
    const [key, direction] = order.value.split(" ");
    sort(headers.find((header) => header.dataset.key === key), direction);
  });
  for (const link of document.querySelectorAll("a[data-show]")) {
    link.addEventListener("click", () => {
      search.value = "";
      show.value = link.dataset.show;
      update();
    });
  }
  search.addEventListener("input", update);
  show.addEventListener("change", update);
  document.getElementById("tools").hidden = false;
  update();
})();
