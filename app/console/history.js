/** The history, newest first, and what is left out of it. */

import { h, byId, icon, ICONS } from "./dom.js";
import { attributesOf, genresOf, isKnown, nameOf, titleOf } from "./catalogue.js";
import { tile } from "./tile.js";

const DATE = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });
const MOMENT = new Intl.DateTimeFormat(undefined, { dateStyle: "long", timeStyle: "medium" });

/** "just now", "12 min ago", or the date. */
function when(timestamp, now) {
  const minutes = (now - Date.parse(timestamp)) / 60_000;
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${Math.floor(minutes)} min ago`;
  return DATE.format(new Date(timestamp));
}

export class HistoryView {
  constructor(onToggle, onMore) {
    this.onToggle = onToggle;
    this.onMore = onMore;
  }

  render(visit) {
    const num = visit.events.length;
    byId("history-title").textContent = visit.kind === "list" ? "Your list" : "History";
    byId("history-count").textContent = visit.historyIsKnown && num > 0 ? String(num) : "";
    byId("search-box").disabled = visit.kind === null;
    this.#whatIf(visit);
    const focused = document.activeElement?.dataset.key;
    const holder = byId("history");
    const scrolled = holder.scrollTop;
    holder.replaceChildren(...this.#content(visit));
    holder.scrollTop = scrolled;
    if (focused) [...holder.querySelectorAll("[data-key]")].find((button) => button.dataset.key === focused)?.focus({ preventScroll: true });
  }

  #whatIf(visit) {
    const num = visit.leftOut.length;
    byId("what-if").hidden = num === 0;
    const stays = visit.kind === "user" ? "The stored history is untouched." : "";
    byId("what-if-text").textContent = `${num} ${num === 1 ? "event is" : "events are"} left out of the ranking. ${stays}`;
  }

  #content(visit) {
    if (visit.kind === null) return [h("p", { class: "hint" }, "Open a user, and their events appear here, newest first.")];
    if (!visit.historyIsKnown) return visit.error ? [h("p", { class: "hint" }, "The history could not be read.")] : [ghosts()];
    if (visit.events.length === 0) {
      return [h("p", { class: "hint" }, "No events yet. Search a title above, or click one in the ranking: it becomes the first.")];
    }
    const newestFirst = visit.events.toReversed();
    const now = Date.now();
    const list = h("ul", { class: "events" }, ...newestFirst.slice(0, visit.numShown).map((event) => this.#row(event, now)));
    const numOlder = newestFirst.length - visit.numShown;
    if (numOlder <= 0) return [list];
    return [list, h("button", { class: "link-button more", type: "button", onclick: this.onMore }, `Show older events (${numOlder})`)];
  }

  #row(event, now) {
    const { year } = attributesOf(event.itemId);
    const parts = [year, genresOf(event.itemId).slice(0, 2).join(", ")].filter(Boolean).join(" · ");
    const title = isKnown(event.itemId) ? h("span", { class: "title" }, titleOf(event.itemId)) : h("span", { class: "bone long" });
    const time = event.timestamp ? h("time", { datetime: event.timestamp, title: MOMENT.format(new Date(event.timestamp)) }, when(event.timestamp, now)) : null;
    const action = event.isLeftOut ? "Put back" : "Leave out";
    return h(
      "li",
      { "data-item": event.itemId, "data-left-out": event.isLeftOut },
      tile(event.itemId),
      h("span", { class: "words" }, title, h("span", { class: "sub" }, h("span", {}, parts), time)),
      h(
        "button",
        { class: "icon-button", type: "button", "data-key": event.key, title: action, "aria-label": `${action}: ${nameOf(event.itemId)}`, "aria-pressed": String(event.isLeftOut), onclick: () => this.onToggle(event.key) },
        icon(event.isLeftOut ? ICONS.back : ICONS.cross),
      ),
    );
  }
}

function ghosts() {
  const row = () => h("li", { class: "ghost" }, h("span", { class: "bone square" }), h("span", { class: "bone long" }));
  return h("ul", { class: "events", "aria-label": "Loading" }, ...Array.from({ length: 6 }, row));
}
