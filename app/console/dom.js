/** Elements from code: text is always set as text, so nothing that the service sends can become markup. */

/**
 * h("li", {class: "row", "aria-label": "…", onclick: f}, "text", child, null) → element.
 * Functions become listeners, `true` an empty attribute; null, undefined and false are left out.
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** A small icon from one SVG path, hidden from assistive technology. */
export function icon(path) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "icon");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

export const ICONS = {
  plus: "M10 4.5v11M4.5 10h11",
  cross: "m5.5 5.5 9 9m0-9-9 9",
  back: "M7.5 5 3.5 9l4 4M4 9h8a4 4 0 0 1 0 8h-2",
  up: "M10 15.5v-11m-4.5 4.5L10 4.5 14.5 9",
  down: "M10 4.5v11m4.5-4.5L10 15.5 5.5 11",
};

/** Tell assistive technology what happened. */
export function announce(text) {
  byId("live").textContent = text;
}
