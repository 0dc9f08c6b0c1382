/** Wires the page: what people touch on one side, the visit on the other. */

import { showModel } from "./about.js";
import { ServiceError } from "./api.js";
import { matchTitles, nameOf } from "./catalogue.js";
import { announce, byId, h } from "./dom.js";
import { HistoryView } from "./history.js";
import { RankingView } from "./ranking.js";
import { startSearch } from "./search.js";
import { randomId, Visit } from "./visit.js";

const USERS_KEY = "segue.users";
const TITLES_KEY = "segue.titles";
const EXAMPLES = ["1", "7", "42"];
const MAX_USERS = 8;
const MAX_TITLES = 200;

const visit = new Visit(render);
const ranking = new RankingView(add, () => visit.retry());
const history = new HistoryView(toggle, () => visit.showMore());

/** Users to offer: those of the link (`/?users=1,13,42`), then those that this browser has opened, or else examples. */
function rememberedUsers() {
  const linked = new URLSearchParams(location.search).get("users")?.split(",") ?? [];
  const stored = JSON.parse(localStorage.getItem(USERS_KEY) ?? "[]");
  const ids = [...new Set([...linked, ...stored].map((id) => String(id).trim()).filter(Boolean))];
  return (ids.length > 0 ? ids : EXAMPLES).slice(0, MAX_USERS);
}

let users = rememberedUsers();

function render() {
  const current = visit.kind === "user" ? visit.userId : null;
  const chip = (id) => h("button", { class: "chip", type: "button", "aria-pressed": String(id === current), onclick: () => openUser(id) }, id);
  const focused = byId("who").contains(document.activeElement) ? document.activeElement.textContent : null;
  byId("who").hidden = users.length === 0;
  byId("who").replaceChildren(...users.map(chip));
  if (focused) [...byId("who").children].find((button) => button.textContent === focused)?.focus();
  byId("paste").setAttribute("aria-pressed", String(visit.kind === "list"));
  history.render(visit);
  ranking.render(visit);
  showService();
}

function showService() {
  const { answer, error, isBusy } = visit;
  const say = (state, text) => {
    byId("service").dataset.state = state;
    byId("service-text").textContent = text;
  };
  if (error) say("down", error.unreachable ? "Not reachable" : "Answers with an error");
  else if (answer?.degraded) say("partial", "Degraded");
  else if (answer && !answer.model_version) say("partial", "No model is live");
  else if (answer && !isBusy) say("ready", "Ready");
}

async function openUser(userId) {
  if (!users.includes(userId)) users = [userId, ...users].slice(0, MAX_USERS);
  localStorage.setItem(USERS_KEY, JSON.stringify(users));
  await visit.openUser(userId);
  tell(`Ranking for ${userId}`);
}

async function add(itemId) {
  await visit.add(itemId);
  tell(`Added ${nameOf(itemId)}`);
}

async function toggle(key) {
  const event = visit.events.find((one) => one.key === key);
  await visit.toggle(key);
  tell(`${event.isLeftOut ? "Left out" : "Put back"} ${nameOf(event.itemId)}`);
}

/** One sentence for people who listen: what was done, and what came of it. */
function tell(what) {
  if (visit.error) return;
  const items = visit.answer?.items ?? [];
  const moved = visit.ranksBefore ? items.filter((item) => visit.ranksBefore.get(item.item_id) !== item.rank).length : 0;
  const first = items.length > 0 ? `First: ${nameOf(items[0].item_id)}.` : "Nothing is ranked.";
  announce(`${what}. ${moved > 0 ? `${moved} places changed. ` : ""}${first}`);
}

function startPaste() {
  const dialog = byId("paste-dialog");
  const fault = byId("paste-fault");
  const show = (text) => {
    fault.textContent = text;
    fault.hidden = text === "";
  };
  byId("paste-text").value = localStorage.getItem(TITLES_KEY) ?? "";
  byId("paste").addEventListener("click", () => {
    show("");
    dialog.showModal();
  });
  byId("paste-cancel").addEventListener("click", () => dialog.close());
  byId("paste-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const lines = byId("paste-text").value.split("\n").map((line) => line.trim()).filter(Boolean);
    if (lines.length === 0) return show("Write at least one title.");
    if (lines.length > MAX_TITLES) return show(`These are ${lines.length} titles; at most ${MAX_TITLES} are read.`);
    show("");
    localStorage.setItem(TITLES_KEY, lines.join("\n"));
    byId("paste-go").disabled = true;
    try {
      const { itemIds, unmatched } = await matchTitles(lines);
      if (itemIds.length === 0) return show(`None of these titles is in the catalogue: ${unmatched.join(", ")}.`);
      dialog.close();
      await visit.openList(itemIds, unmatched);
      tell(`Ranking for your list of ${itemIds.length}`);
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error;
      show(`${error.title}. ${error.detail}`);
    } finally {
      byId("paste-go").disabled = false;
    }
  });
}

async function start() {
  byId("user-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const id = byId("user-id").value.trim();
    if (id === "") return byId("user-id").focus();
    byId("user-id").value = "";
    openUser(id);
  });
  byId("invent").addEventListener("click", () => openUser(`guest-${randomId(5)}`));
  byId("restore").addEventListener("click", async () => {
    await visit.putAllBack();
    tell("Everything is back");
  });
  byId("sizes").addEventListener("change", (event) => visit.setSize(Number(event.target.value)));
  startPaste();
  startSearch(add);
  await openUser(users[0]);
  await showModel();
}

start();
