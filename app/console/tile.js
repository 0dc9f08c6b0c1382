/** A coloured tile in place of a picture: the hue follows the first genre, the letters the title. */

import { h } from "./dom.js";
import { genresOf, titleOf } from "./catalogue.js";

const HUES = {
  action: 12, adventure: 30, animation: 48, children: 60, "children's": 60, comedy: 40, crime: 350, documentary: 190,
  drama: 255, fantasy: 285, "film-noir": 220, horror: 0, musical: 320, mystery: 235, romance: 335, "sci-fi": 205,
  thriller: 165, war: 95, western: 24,
};

function hueOf(word) {
  const name = word.toLowerCase();
  if (name in HUES) return HUES[name];
  let sum = 0;
  for (const letter of name) sum = (sum * 31 + letter.codePointAt(0)) % 360;
  return sum;
}

/** "The Usual Suspects" → "US" */
function initials(title) {
  const words = title.replace(/^(the|an?)\s+/i, "").split(/[^\p{L}\p{N}]+/u).filter(Boolean);
  return words.slice(0, 2).map((word) => [...word][0].toUpperCase()).join("");
}

export function tile(itemId) {
  const element = h("span", { class: "tile", "aria-hidden": "true" }, initials(titleOf(itemId)));
  element.style.setProperty("--hue", String(hueOf(genresOf(itemId)[0] ?? itemId)));
  return element;
}
