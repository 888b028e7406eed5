"use strict";

function element(tag, text, ...children) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

// The schema with its references written out; there are no circular ones.
function written(schema, all) {
  if (Array.isArray(schema)) return schema.map((part) => written(part, all));
  if (schema === null || typeof schema !== "object") return schema;
  if (schema.$ref) return written(all[schema.$ref.split("/").pop()], all);
  return Object.fromEntries(
    Object.entries(schema)
      .filter(([key, value]) => key !== "title" || typeof value !== "string")
      .map(([key, value]) => [key, written(value, all)]),
  );
}

function folded(summary, schema, all) {
  const shown = element("pre", JSON.stringify(written(schema, all), null, 2));
  shown.tabIndex = 0;
  return element("details", "", element("summary", summary), shown);
}

function operation(path, method, described, all) {
  const parts = [element("h2", "", element("code", `${method.toUpperCase()} ${path}`))];
  parts.push(element("p", described.description));
  const body = described.requestBody?.content["application/json"].schema;
  if (body) parts.push(folded("Request", body, all));
  for (const [status, answer] of Object.entries(described.responses)) {
    const schema = answer.content?.["application/json"].schema ?? {};
    parts.push(folded(`${status}: ${answer.description}`, schema, all));
  }
  return element("section", "", ...parts);
}

async function show() {
  const api = await (await fetch("openapi.json")).json();
  const sections = Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, described]) => operation(path, method, described, api.components.schemas)),
  );
  const example = `curl ${new URL("rank", location.href)} --json '{"prompt": "Is it cold?", "choices": ["Yes", "No"]}'`;
  const main = document.getElementById("api");
  main.replaceChildren(element("p", api.info.description), element("pre", example), ...sections);
}

show().catch(() => { document.getElementById("status").textContent = "The server does not answer. Is it still running?"; });
