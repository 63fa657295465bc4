// Draws the service's AsyncAPI 3.0 document. Served with it, so that it works without the internet.
// All text goes into the page as text, never as HTML.
"use strict";

const element = (name, attributes, ...children) => {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
};

const code = (text) => element("code", {}, text);
const muted = (text) => element("span", { className: "muted" }, text);
const joined = (parts, separator) =>
  element("span", {}, ...parts.flatMap((part, at) => (at ? [separator, part] : [part])));

/** Follow `$ref`, a JSON pointer into the document, to what it points at. */
const resolve = (root, value) => {
  for (let hops = 0; value && value.$ref && hops < 20; hops += 1) {
    value = value.$ref
      .replace(/^#\//, "")
      .split("/")
      .map((part) => part.replace(/~1/g, "/").replace(/~0/g, "~"))
      .reduce((node, part) => (node || {})[part], root);
  }
  return value || {};
};

const nameOf = (reference) => reference.split("/").pop();
const anchorOf = (name) => `schema-${name}`;

/** What a JSON Schema allows, in a few words; a named schema is a link to its table. */
const type = (schema) => {
  if (schema.$ref) {
    const name = nameOf(schema.$ref);
    return element("a", { href: `#${encodeURIComponent(anchorOf(name))}` }, name);
  }
  if (schema.const !== undefined) return code(JSON.stringify(schema.const));
  if (schema.enum) return joined(schema.enum.map((one) => code(JSON.stringify(one))), " or ");
  const choices = schema.anyOf || schema.oneOf;
  if (choices) return joined(choices.map(type), " or ");
  if (schema.allOf) return joined(schema.allOf.map(type), " and ");
  if (schema.type === "array") return element("span", {}, "array of ", type(schema.items || {}));
  const values = schema.additionalProperties;
  if (values && typeof values === "object") return element("span", {}, "map of ", type(values));
  return joined([].concat(schema.type || "anything").map(code), " or ");
};

const LIMITS = {
  minimum: "≥ ", exclusiveMinimum: "> ", maximum: "≤ ", exclusiveMaximum: "< ", multipleOf: "multiple of ",
  minLength: "length ≥ ", maxLength: "length ≤ ", minItems: "items ≥ ", maxItems: "items ≤ ",
  pattern: "matches ", format: "format ", default: "default ",
};

/** What narrows a type down; null allows nothing more, so a choice's other half is looked at too. */
const limits = (schema) =>
  [schema, ...(schema.anyOf || [])]
    .flatMap((one) => Object.entries(LIMITS).filter(([key]) => one[key] !== undefined).map(
      ([key, words]) => words + (key === "pattern" || key === "format" ? one[key] : JSON.stringify(one[key]))))
    .join(", ");

const table = (schema) => {
  const required = new Set(schema.required || []);
  const head = element("tr", {}, ...["Field", "Type", "Meaning"].map((text) => element("th", {}, text)));
  const rows = Object.entries(schema.properties).map(([name, property]) =>
    element("tr", {},
      element("td", {}, code(name), required.has(name) ? "" : muted(" optional")),
      element("td", {}, type(property), " ", muted(limits(property))),
      element("td", {}, property.description || "")));
  return element("table", {}, head, ...rows);
};

/** A schema under its name; those drawn already are only named, with a link. */
const drawSchema = (drawn, name, schema, before = "") => {
  if (drawn.has(name)) return [element("p", {}, before, type({ $ref: name }))];
  drawn.add(name);
  return [
    element("p", { id: anchorOf(name) },
      before, element("strong", {}, name), " ", schema.properties ? "" : type(schema), " ", schema.description || ""),
    ...(schema.properties ? [table(schema)] : []),
  ];
};

const drawPayload = (specification, drawn, payload) => {
  const schema = resolve(specification, payload);
  if (schema.type === "array" && schema.items && schema.items.$ref) {
    // A batch; the array itself has no name that anybody gave it.
    if (payload.$ref) drawn.add(nameOf(payload.$ref));
    return drawSchema(drawn, nameOf(schema.items.$ref), resolve(specification, schema.items), "In batches: ");
  }
  if (payload.$ref) return drawSchema(drawn, nameOf(payload.$ref), schema);
  return schema.properties ? [table(schema)] : [element("p", {}, type(schema))];
};

const drawOperation = (specification, drawn, operation) => {
  const channel = resolve(specification, operation.channel);
  const method = ((operation.bindings || {}).http || {}).method;
  const messages = (operation.messages || []).map((one) => resolve(specification, one));
  return element("section", { className: `operation ${operation.action}` },
    element("h3", {},
      element("span", { className: "badge" }, operation.action), " ",
      code(method ? `${method} ${channel.address}` : channel.address || "")),
    ...(channel.description ? [element("p", {}, channel.description)] : []),
    ...messages.flatMap((message) => drawPayload(specification, drawn, message.payload || {})));
};

const draw = (specification) => {
  const main = document.getElementById("main");
  document.title = specification.info.title;
  document.getElementById("title").textContent = specification.info.title;
  const servers = Object.values(specification.servers || {}).map((server) => `${server.protocol}://${server.host}`);
  document.getElementById("subtitle").append(
    `version ${specification.info.version} · ${servers.join(", ")} · `,
    element("a", { href: "asyncapi.json" }, "asyncapi.json"),
  );

  const drawn = new Set();
  const operations = Object.values(specification.operations || {});
  for (const [action, title] of [["receive", "What it receives"], ["send", "What it sends"]]) {
    const these = operations.filter((operation) => operation.action === action);
    if (these.length) main.append(element("h2", {}, title));
    main.append(...these.map((operation) => drawOperation(specification, drawn, operation)));
  }

  const schemas = Object.entries((specification.components || {}).schemas || {});
  const parts = schemas.filter(([name]) => !drawn.has(name));
  if (parts.length) main.append(element("h2", {}, "What these are made of"));
  main.append(...parts.flatMap(([name, schema]) => drawSchema(drawn, name, schema)));
};

fetch("asyncapi.json")
  .then((answer) => {
    if (!answer.ok) throw new Error(`asyncapi.json: HTTP ${answer.status}`);
    return answer.json();
  })
  .then(draw)
  .catch((error) => document.getElementById("main").append(`Cannot show the document: ${error.message}`));
