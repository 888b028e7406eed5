"use strict";

const MOST_CHOICES = 100;
const byId = (id) => document.getElementById(id);
const inputs = () => [...document.querySelectorAll("#choices input")];

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function renumber() {
  inputs().forEach((input, index) => {
    input.setAttribute("aria-label", `Choice ${index + 1}`);
    input.nextElementSibling.setAttribute("aria-label", `Remove choice ${index + 1}`);
  });
  byId("add").disabled = inputs().length >= MOST_CHOICES;
}

function addChoice(focus) {
  if (inputs().length >= MOST_CHOICES) return;
  const input = element("input", { type: "text", maxLength: 2000, autocomplete: "off" });
  const remove = element("button", { type: "button", className: "quiet", textContent: "×" });
  const item = element("li", {}, input, remove);
  // Enter goes on to the next choice; without this it would ask.
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.ctrlKey || event.metaKey || event.isComposing) return;
    event.preventDefault();
    const next = inputs()[inputs().indexOf(input) + 1];
    if (next) next.focus();
    else addChoice(true);
  });
  remove.addEventListener("click", () => {
    const index = inputs().indexOf(input);
    item.remove();
    renumber();
    (inputs()[Math.min(index, inputs().length - 1)] ?? byId("add")).focus();
  });
  byId("choices").append(item);
  renumber();
  if (focus) input.focus();
}

function say(sentence, wrong = false) {
  byId("status").textContent = sentence;
  byId("status").classList.toggle("wrong", wrong);
}

async function post(path, body) {
  let response;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ?? `The server answered ${response.status}.`);
  return answer.answers[0];
}

function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  if (share < 1 && share > 0.999) return "> 99.9 %";
  return `${(100 * share).toFixed(1)} %`;
}

function showRanking(choices, scores) {
  const highest = Math.max(...scores);
  const weights = scores.map((score) => Math.exp(score - highest));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const order = scores.map((_, index) => index).sort((a, b) => scores[b] - scores[a] || a - b);
  byId("bars").replaceChildren(
    ...order.map((index, place) => {
      const share = weights[index] / total;
      const fill = element("div", { className: "fill" });
      // Set as a property: the page's policy allows no style attributes.
      fill.style.width = `${100 * share}%`;
      const said = element(
        "div",
        { className: "said" },
        element("span", { className: "choice", textContent: choices[index] }),
        element(
          "span",
          { className: "share" },
          percent(share),
          element("span", { className: "muted", textContent: ` (${scores[index].toFixed(2)})` }),
        ),
      );
      return element("li", { className: place ? "" : "first" }, said, element("div", { className: "track" }, fill));
    }),
  );
  byId("ranking").hidden = false;
}

function showAnswer(text) {
  byId("answer").textContent = text || "(nothing)";
  byId("answer").classList.toggle("muted", !text);
  byId("writing").hidden = false;
}

function settings() {
  const number = (id) => byId(id).valueAsNumber;
  const chosen = { max_new_tokens: number("max_new_tokens"), beams: number("beams"), seed: number("seed") };
  if (byId("temperature").value) chosen.temperature = number("temperature");
  return chosen;
}

async function ask() {
  const prompt = byId("prompt").value;
  const choices = inputs().map((input) => input.value.trim()).filter(Boolean);
  byId("ranking").hidden = byId("writing").hidden = true;
  byId("submit").disabled = true;
  say("Asking …");
  try {
    const parts = [post("generate", { prompt, ...settings() }).then((answer) => showAnswer(answer.output))];
    if (choices.length) {
      const ranked = post("rank", { prompt, choices });
      parts.push(ranked.then((answer) => showRanking(choices, answer.log_likelihoods)));
    }
    const failed = (await Promise.allSettled(parts)).find((part) => part.status === "rejected");
    if (failed) throw failed.reason;
    say("");
  } catch (error) {
    say(error.message, true);
  } finally {
    byId("submit").disabled = false;
  }
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!byId("submit").disabled) ask();
});
byId("ask").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    byId("ask").requestSubmit();
  }
});
byId("add").addEventListener("click", () => addChoice(true));
addChoice(false);
addChoice(false);
fetch("healthz")
  .then((response) => response.json())
  .then((health) => { byId("model").textContent = health.model; })
  .catch(() => say("The server does not answer. Is it still running?", true));
