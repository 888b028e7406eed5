"use strict";
// Sorts tables, shows and hides published rows, leafs through predictions and points of training. Text from outside is only
// ever set as text.
(() => {
  const percent = (share) => (100 * share).toFixed(1) + "\u00a0%";

  function element(name, className, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // ---- tables -------------------------------------------------------------------------------------------

  function cellValue(row, column, numeric) {
    const cell = row.cells[column];
    const value = cell.dataset.value ?? cell.textContent.trim();
    return numeric ? (value === "" ? NaN : Number(value)) : value.toLowerCase();
  }

  function sortTable(table, heading, column) {
    const numeric = heading.dataset.sort === "number";
    const before = heading.getAttribute("aria-sort");
    // Scores are looked for from the top, names from A.
    const first = numeric ? "descending" : "ascending";
    const second = numeric ? "ascending" : "descending";
    const order = before === first ? second : first;
    for (const other of heading.parentElement.children) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const stays = (row) => row.classList.contains("total") || row.classList.contains("absent");
    const sorted = rows.filter((row) => !stays(row)).map((row) => [cellValue(row, column, numeric), row]);
    sorted.sort(([a], [b]) => {
      if (numeric && (Number.isNaN(a) || Number.isNaN(b))) return Number.isNaN(a) - Number.isNaN(b);
      return sign * (numeric ? a - b : a.localeCompare(b));
    });
    body.append(...sorted.map(([, row]) => row), ...rows.filter((row) => stays(row)));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      if (!heading.dataset.sort) return;
      const button = element("button", "sort", heading.textContent.trim());
      button.type = "button";
      button.addEventListener("click", () => sortTable(table, heading, column));
      heading.replaceChildren(button);
    });
  }

  // ---- published rows -----------------------------------------------------------------------------------

  for (const box of document.querySelectorAll("input[data-published]")) {
    const rows = document.querySelectorAll("#published-table tr[data-model]");
    const row = [...rows].find((candidate) => candidate.dataset.model === box.dataset.published);
    const show = () => { row.hidden = !box.checked; };
    box.addEventListener("change", show);
    show();
  }

  // ---- samples over training ----------------------------------------------------------------------------

  for (const samples of document.querySelectorAll(".samples")) {
    const points = samples.querySelector(".points");
    const show = () => {
      const chosen = points.querySelector("input:checked").value;
      for (const part of samples.querySelectorAll("[data-point]")) part.hidden = part.dataset.point !== chosen;
    };
    points.hidden = false;
    points.addEventListener("change", show);
    show();
  }

  // ---- predictions --------------------------------------------------------------------------------------

  const form = document.getElementById("filters");
  if (!form) return;
  const sample = JSON.parse(document.getElementById("sample").textContent);
  const cards = document.getElementById("cards");
  const found = document.getElementById("found");
  const more = document.getElementById("more");
  const pageSize = 12;
  let hits = [];
  let shown = 0;

  const inOrder = (a, b) => a[1] - b[1] || a[2] - b[2] || a[0] - b[0];
  const items = sample.items.sort(inOrder).map((fields, place) => {
    const [model, template, row, prompt, left, choices, scores, prediction, gold, truncated] = fields;
    const highest = Math.max(...scores.filter((score) => score !== null));
    const weights = scores.map((score) => (score === null ? 0 : Math.exp(score - highest)));
    const total = weights.reduce((sum, weight) => sum + weight, 0) || 1;
    const shares = weights.map((weight) => weight / total);
    const [task, wording] = sample.templates[template];
    return {
      model: sample.models[model], task, template: wording, row, prompt, left, choices, scores, shares, prediction,
      gold, truncated, place, right: prediction === gold, searched: (prompt + "\n" + choices.join("\n")).toLowerCase(),
    };
  });

  // Which prompts were answered rightly by one model and wrongly by another.
  const outcomes = new Map();
  const question = (item) => JSON.stringify([item.task, item.template, item.row]);
  for (const item of items) {
    const key = question(item);
    outcomes.set(key, (outcomes.get(key) ?? new Set()).add(item.right));
  }
  const disputed = (item) => outcomes.get(question(item)).size > 1;

  function fill(select, values, everything) {
    const before = select.value;
    const options = values.map((value) => {
      const option = element("option", "", value === "" ? "(empty)" : value);
      option.value = "=" + value;
      return option;
    });
    const all = element("option", "", everything);
    all.value = "";
    select.replaceChildren(all, ...options);
    select.value = before;
    if (select.selectedIndex < 0) select.value = "";
  }

  const distinct = (list, key) => [...new Set(list.map(key))];
  const agrees = (select, value) => select.value === "" || select.value === "=" + value;

  // What can be picked follows from what was picked before it.
  function refillFilters() {
    const inTask = items.filter((item) => agrees(form.task, item.task));
    fill(form.template, distinct(inTask, (item) => item.template), "all templates");
    const inTemplate = inTask.filter((item) => agrees(form.template, item.template));
    const golds = distinct(inTemplate, (item) => item.choices[item.gold]).sort();
    form.gold.disabled = golds.length > 40;
    fill(form.gold, golds.length > 40 ? [] : golds, golds.length > 40 ? "too many to list" : "any");
  }

  const orders = {
    wrong: (item) => (item.right ? 2 - item.shares[item.prediction] : item.shares[item.gold] - item.shares[item.prediction]),
    right: (item) => (item.right ? -item.shares[item.prediction] : 1 + item.shares[item.prediction]),
    unsure: (item) => item.shares[item.prediction],
    row: (item) => item.place,
  };

  function refresh() {
    const text = form.text.value.trim().toLowerCase();
    const outcome = form.outcome.value;
    const order = orders[form.order.value];
    hits = items.filter((item) =>
      agrees(form.model, item.model) && agrees(form.task, item.task) && agrees(form.template, item.template)
      && (outcome === "" || (outcome === "disputed" ? disputed(item) : item.right === (outcome === "right")))
      && agrees(form.gold, item.choices[item.gold]) && item.searched.includes(text));
    hits = hits.map((item) => [order(item), item]).sort((a, b) => a[0] - b[0]).map(([, item]) => item);
    const right = hits.filter((item) => item.right).length;
    found.textContent = hits.length === 0 ? "None of those on this page."
      : hits.length.toLocaleString("en") + " of those on this page, " + right.toLocaleString("en") + " right ("
        + percent(right / hits.length) + ").";
    cards.replaceChildren();
    shown = 0;
    showMore();
  }

  function showMore() {
    cards.append(...hits.slice(shown, shown + pageSize).map(card));
    shown = Math.min(shown + pageSize, hits.length);
    more.hidden = shown >= hits.length;
  }

  function card(item) {
    const article = element("article", "example");
    const header = element("header");
    const where = element("span", "", item.task + " · " + item.template + " · row " + (item.row + 1)
      + (sample.models.length > 1 ? " · " + item.model : ""));
    header.append(where, element("span", item.right ? "right" : "wrong", item.right ? "✓ right" : "✗ wrong"));
    const prompt = element("div", "prompt", item.prompt);
    prompt.tabIndex = 0;
    article.append(header, prompt);
    if (item.left) article.append(element("p", "note", "… " + item.left.toLocaleString("en") + " more characters"));
    if (item.truncated) article.append(element("p", "note", "The prompt was longer than the model reads."));
    const list = element("ul", "choices");
    item.choices.forEach((text, index) => {
      const entry = element("li", index === item.prediction ? "predicted-choice" : "");
      const line = element("span", "line");
      const label = element("span", "text", text === "" ? "(empty)" : text);
      if (index === item.prediction) label.append(element("span", "mark predicted", "predicted"));
      if (index === item.gold) label.append(element("span", "mark correct", "correct"));
      const score = item.scores[index];
      const value = percent(item.shares[index]) + " · " + (score === null ? "not finite" : score.toFixed(2));
      line.append(label, element("span", "value", value));
      const bar = element("span", "bar");
      const filled = element("span", "fill");
      filled.style.width = 100 * item.shares[index] + "%";
      bar.append(filled);
      entry.append(line, bar);
      list.append(entry);
    });
    article.append(list);
    return article;
  }

  fill(form.model, sample.models, "all models");
  form.model.parentElement.hidden = sample.models.length < 2;
  if (sample.models.length > 1) {
    const option = element("option", "", "one model right, another wrong");
    option.value = "disputed";
    form.outcome.append(option);
  }
  fill(form.task, distinct(items, (item) => item.task), "all tasks");
  refillFilters();
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    if (event.target === form.task || event.target === form.template) refillFilters();
    refresh();
  });
  more.addEventListener("click", showMore);
  refresh();
})();
