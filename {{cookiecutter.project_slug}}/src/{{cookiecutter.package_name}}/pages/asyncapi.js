// Draws the service's AsyncAPI 3.0 document. Served with it, so that it works without the internet.
"use strict";

const element = (name, attributes, ...children) => {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
};

const resolve = (root, value) => {
  let seen = 0;
  while (value && value.$ref && seen++ < 20) {
    value = value.$ref
      .replace(/^#\//, "")
      .split("/")
      .map((part) => part.replace(/~1/g, "/").replace(/~0/g, "~"))
      .reduce((node, part) => (node || {})[part], root);
  }
  return value || {};
};

const draw = (specification) => {
  const main = document.getElementById("main");
  document.title = specification.info.title;
  document.getElementById("title").textContent = specification.info.title;
  const servers = Object.values(specification.servers || {}).map(
    (server) => `${server.protocol}://${server.host}`,
  );
  const subtitle = document.getElementById("subtitle");
  subtitle.append(
    `version ${specification.info.version} · ${servers.join(", ")} · `,
    element("a", { href: "asyncapi.json" }, "asyncapi.json"),
  );

  main.append(element("h2", {}, "Operations"));
  for (const operation of Object.values(specification.operations || {})) {
    const channel = resolve(specification, operation.channel);
    const section = element(
      "section",
      { className: `operation ${operation.action}` },
      element("p", {},
        element("span", { className: "badge" }, operation.action), " ",
        element("code", {}, channel.address || "")),
      element("p", {}, channel.description || ""),
    );
    for (const reference of operation.messages || []) {
      const message = resolve(specification, resolve(specification, reference));
      section.append(
        element("p", { className: "muted" }, message.title || ""),
        element("pre", {}, JSON.stringify(resolve(specification, message.payload), null, 2)),
      );
    }
    main.append(section);
  }

  const schemas = Object.entries((specification.components || {}).schemas || {});
  main.append(element("h2", {}, "Schemas"));
  for (const [name, schema] of schemas) {
    main.append(
      element("h3", {}, name),
      element("pre", {}, JSON.stringify(schema, null, 2)),
    );
  }
};

fetch("asyncapi.json")
  .then((answer) => {
    if (!answer.ok) throw new Error(`asyncapi.json: HTTP ${answer.status}`);
    return answer.json();
  })
  .then(draw)
  .catch((error) => document.getElementById("main").append(`Cannot show the document: ${error.message}`));
