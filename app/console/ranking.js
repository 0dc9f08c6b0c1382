/** The ranked list: facts about the answer, notices, the problem if there is one, and the items with their moves. */

import { h, byId, icon, ICONS } from "./dom.js";
import { attributesOf, genresOf, nameOf, titleOf } from "./catalogue.js";
import { tile } from "./tile.js";

const REASONS = {
  unknown_user: "Nothing is known about this user yet, so this is what most people choose. Add a title and the model takes over.",
  no_known_item: "The model knows no item of this history, so this is what most people choose.",
  no_model: "No model is live. The list counts what the service has seen so far.",
  store_unavailable: "The store of histories does not answer, so this list does not know the user.",
  short_catalogue: "Fewer items are left than were asked for.",
};

/** Ranks before and after → "new", a number of places (up is positive), or null where there is nothing to compare. */
export function move(ranksBefore, item) {
  if (!ranksBefore) return null;
  const before = ranksBefore.get(item.item_id);
  return before === undefined ? "new" : before - item.rank;
}

export class RankingView {
  constructor(onPick, onRetry) {
    this.onPick = onPick;
    this.onRetry = onRetry;
    this.list = h("ol", { class: "ranked" });
    this.rows = new Map();
    this.shownAnswer = null;
  }

  render(visit) {
    byId("ranking").setAttribute("aria-busy", String(visit.isBusy));
    this.#heading(visit);
    byId("facts").replaceChildren(...facts(visit));
    byId("notices").replaceChildren(...notices(visit));
    byId("problem").replaceChildren(...(visit.error ? [this.#problem(visit.error)] : []));
    if (visit.answer) this.#items(visit);
    else {
      this.shownAnswer = null;
      this.rows.clear();
      byId("ranked").replaceChildren(...withoutAnswer(visit));
    }
    byId("ranked").toggleAttribute("data-stale", Boolean(visit.error && visit.answer));
  }

  #heading(visit) {
    const titles = { user: `For user ${visit.userId}`, list: "For your list" };
    byId("ranking-title").textContent = titles[visit.kind] ?? "Pick someone to begin";
    byId("ranking-eyebrow").textContent = visit.kind === "user" && visit.leftOut.length > 0 ? "Ranked next, what if" : "Ranked next";
  }

  #problem(error) {
    const origin = [error.code, error.status || null, error.requestId && `request ${error.requestId}`].filter(Boolean).join(" · ");
    return h(
      "div",
      { class: "problem", role: "alert", "data-unreachable": error.unreachable },
      h("div", {}, h("h3", {}, error.title), h("p", {}, error.detail), origin ? h("p", { class: "fine" }, origin) : null),
      h("button", { class: "button", type: "button", id: "retry", onclick: this.onRetry }, "Try again"),
    );
  }

  /** Rows are kept by item id, so that focus stays and a moved row can be seen to move. */
  #items(visit) {
    if (this.shownAnswer === visit.answer) return;
    const before = new Map([...this.rows].map(([id, row]) => [id, row.getBoundingClientRect().top]));
    const focused = [...this.rows.values()].findIndex((row) => row.contains(document.activeElement));
    const { items } = visit.answer;
    const scores = items.map((item) => item.score).filter((score) => score !== null);
    const range = { low: Math.min(...scores), high: Math.max(...scores) };
    const rows = items.map((item) => [item.item_id, this.#row(item, move(visit.ranksBefore, item), range)]);
    this.rows = new Map(rows);
    this.shownAnswer = visit.answer;
    this.list.replaceChildren(...this.rows.values());
    byId("ranked").replaceChildren(items.length > 0 ? this.list : emptyRanking());
    if (focused >= 0) this.list.children[Math.min(focused, items.length - 1)]?.querySelector("button").focus({ preventScroll: true });
    this.#glide(before);
  }

  #row(item, moved, range) {
    const genres = genresOf(item.item_id);
    const { year } = attributesOf(item.item_id);
    return h(
      "li",
      { "data-item": item.item_id, "data-move": moved === "new" ? "new" : moved > 0 ? "up" : moved < 0 ? "down" : null },
      h(
        "button",
        { class: "pick", type: "button", "aria-label": `${item.rank}. ${nameOf(item.item_id)}: ${moveInWords(moved)}add to the history`, onclick: () => this.onPick(item.item_id) },
        h("span", { class: "place" }, h("span", { class: "rank" }, String(item.rank)), moveMark(moved)),
        tile(item.item_id),
        h("span", { class: "words" }, h("span", { class: "title" }, titleOf(item.item_id)), h("span", { class: "sub" }, year ? h("span", { class: "year" }, String(year)) : null, ...genres.slice(0, 4).map((genre) => h("span", { class: "tag" }, genre)))),
        item.score === null ? newItemMark() : scoreBar(item.score, range),
        h("span", { class: "add" }, icon(ICONS.plus)),
      ),
    );
  }

  #glide(before) {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches || before.size === 0) return;
    for (const [id, row] of this.rows) {
      const distance = before.has(id) ? before.get(id) - row.getBoundingClientRect().top : null;
      if (distance === null) row.animate([{ opacity: 0, transform: "translateX(14px)" }, { opacity: 1, transform: "none" }], { duration: 300, easing: "ease-out" });
      else if (distance !== 0) row.animate([{ transform: `translateY(${distance}px)` }, { transform: "none" }], { duration: 320, easing: "cubic-bezier(.2,.8,.2,1)" });
    }
  }
}

function scoreBar(score, range) {
  const span = range.high - range.low;
  const bar = h("span", { class: "bar" }, h("span", { class: "bar-fill" }));
  bar.firstChild.style.width = `${span > 0 ? 8 + (92 * (score - range.low)) / span : 100}%`;
  return h("span", { class: "score", title: "The score of the answer. The bar runs from the last to the first of this list." }, bar, h("span", { class: "number" }, formatScore(score)));
}

/** An item that the model has not learnt stands in a place kept for such items, without a score. */
const newItemMark = () => h("span", { class: "score", title: "The model has not learnt this item yet: a place of the list is kept for new ones." }, h("span"), h("span", { class: "number" }, "new item"));

/** Popularity counts events: 583. The model's scores have no unit: 7.31. */
const formatScore = (score) => (Number.isInteger(score) ? score.toLocaleString("en") : score.toFixed(2)).replace("-", "−");

function moveInWords(moved) {
  if (moved === "new") return "new in the list, ";
  if (!moved) return "";
  return `${moved > 0 ? "up" : "down"} ${Math.abs(moved)}, `;
}

function moveMark(moved) {
  if (moved === "new") return h("span", { class: "move new" }, "new");
  if (!moved) return null;
  return h("span", { class: `move ${moved > 0 ? "up" : "down"}` }, icon(moved > 0 ? ICONS.up : ICONS.down), String(Math.abs(moved)));
}

function facts({ answer, roundTripMs, kind }) {
  if (!answer) return [];
  const time = roundTripMs < 10 ? roundTripMs.toFixed(1) : String(Math.round(roundTripMs));
  const read = answer.history_length;
  const rows = [
    ["Strategy", { model: "Model", popular: "Popularity", trending: "Trending" }[answer.strategy], "strategy", answer.strategy],
    ["Model version", answer.model_version ?? "none", "version", null],
    [kind === "list" ? "List" : "History", `${read} ${read === 1 ? "event" : "events"}`, "length", null],
    ["Round trip", `${time} ms`, "time", null],
  ];
  return rows.map(([name, value, id, tone]) => h("div", { id: `fact-${id}`, "data-tone": tone }, h("dt", {}, name), h("dd", {}, value)));
}

function notices({ answer, unmatched, kind }) {
  const found = [];
  if (answer?.degraded) found.push(["warn", "Degraded: the service answered with less than it should know."]);
  for (const reason of answer?.reasons ?? []) found.push(["info", REASONS[reason] ?? `Reason: ${reason}.`]);
  if (kind === "list" && unmatched.length > 0) {
    found.push(["warn", `Not in the catalogue, left aside: ${unmatched.map((title) => `“${title}”`).join(", ")}.`]);
  }
  return found.map(([tone, text]) => h("p", { class: "notice", "data-tone": tone }, text));
}

function withoutAnswer(visit) {
  if (visit.error) return [];
  if (visit.isBusy) return [skeleton()];
  if (visit.kind === null) return [welcome()];
  return [emptyRanking("Nothing to rank from", "Every event is left out. Put one back, or add a title.")];
}

function emptyRanking(title = "Nothing left to rank", text = "Every item of the catalogue is in this history already.") {
  return h("div", { class: "empty" }, h("h3", {}, title), h("p", {}, text));
}

function welcome() {
  return h(
    "div",
    { class: "empty welcome" },
    h("h3", {}, "One sequence in, one ranking out"),
    h("p", {}, "Open a user to see what they did and what the model ranks next. Click any title to post it as an event: the next ranking already counts it."),
  );
}

function skeleton() {
  const row = () => h("li", { class: "ghost" }, h("span", { class: "bone small" }), h("span", { class: "bone square" }), h("span", { class: "bone long" }), h("span", { class: "bone mid" }));
  return h("ol", { class: "ranked", "aria-label": "Loading" }, ...Array.from({ length: 8 }, row));
}
