/** The field that finds titles while one types: a combobox with a list, by mouse and by keyboard. */

import { h, byId, announce } from "./dom.js";
import { attributesOf, genresOf, search, titleOf } from "./catalogue.js";
import { ServiceError } from "./api.js";

const WAIT_MS = 120;
const NUM_FOUND = 8;

export function startSearch(onChoose) {
  const box = byId("search-box");
  const list = byId("search-list");
  let found = [];
  let active = -1;
  let waiting = 0;
  let asked = 0;

  const close = () => {
    asked += 1;
    clearTimeout(waiting);
    found = [];
    active = -1;
    list.hidden = true;
    list.replaceChildren();
    box.setAttribute("aria-expanded", "false");
    box.removeAttribute("aria-activedescendant");
  };

  const choose = (itemId) => {
    box.value = "";
    close();
    onChoose(itemId);
  };

  const mark = (index) => {
    active = (index + found.length) % found.length;
    for (const [place, option] of [...list.children].entries()) option.setAttribute("aria-selected", String(place === active));
    const option = list.children[active];
    option.scrollIntoView({ block: "nearest" });
    box.setAttribute("aria-activedescendant", option.id);
  };

  const note = (text) => list.replaceChildren(h("li", { class: "search-note", role: "presentation" }, text));

  const show = () => {
    list.hidden = false;
    box.setAttribute("aria-expanded", "true");
    if (found.length === 0) {
      note("No title begins like this.");
      announce("No title begins like this.");
      return;
    }
    const option = (itemId, place) =>
      h(
        "li",
        { role: "option", id: `found-${place}`, "aria-selected": "false", "data-item": itemId, onmousedown: (event) => event.preventDefault(), onclick: () => choose(itemId) },
        h("span", { class: "title" }, titleOf(itemId)),
        h("span", { class: "sub" }, [attributesOf(itemId).year, genresOf(itemId).slice(0, 3).join(", ")].filter(Boolean).join(" · ")),
      );
    list.replaceChildren(...found.map(option));
    announce(`${found.length} titles found.`);
  };

  const look = async (text) => {
    const turn = (asked += 1);
    try {
      const answer = await search(text, NUM_FOUND);
      if (turn !== asked) return;
      found = answer;
      active = -1;
      show();
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error;
      if (turn !== asked) return;
      found = [];
      list.hidden = false;
      note(error.title);
      announce(error.title);
    }
  };

  box.addEventListener("input", () => {
    clearTimeout(waiting);
    const text = box.value.trim();
    if (text === "") close();
    else waiting = setTimeout(look, WAIT_MS, text);
  });
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
    if (found.length === 0) return;
    if (event.key === "ArrowDown") mark(active + 1);
    else if (event.key === "ArrowUp") mark(active < 0 ? -1 : active - 1);
    else if (event.key === "Enter") choose(found[Math.max(active, 0)]);
    else return;
    event.preventDefault();
  });
  box.addEventListener("blur", close);
}
