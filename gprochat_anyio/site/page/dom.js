// Creates elements without parsing markup: a model's text only becomes text nodes.

/** Create an element. `on…` properties are listeners, others attributes; false omits one. */
export function el(tag, properties = {}, children = []) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false) node.setAttribute(name, value);
  }
  return fill(node, typeof children === "string" ? [children] : children);
}

/** Append children one by one: a call can only take a limited number of arguments. */
export function fill(node, children) {
  for (const child of children) node.append(child);
  return node;
}

export function button(label, onclick, properties = {}) {
  return el("button", { type: "button", onclick, ...properties }, label);
}

/** Create a button that copies a text, and briefly shows the result. */
export function copyButton(readText) {
  const node = button("Copy", async () => {
    node.textContent = (await copied(readText())) ? "Copied" : "Copy failed";
    setTimeout(() => {
      node.textContent = "Copy";
    }, 1500);
  });
  return node;
}

async function copied(text) {
  // The clipboard API requires a secure context, so it is missing over plain HTTP in a LAN.
  if (navigator.clipboard) {
    return navigator.clipboard.writeText(text).then(
      () => true,
      () => false,
    );
  }
  const area = el("textarea", { class: "sr-only" });
  const focused = document.activeElement;
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return done;
}
