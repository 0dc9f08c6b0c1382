/** One visit: whose history is read, what is left out of it, and the ranking that follows. It knows no elements. */

import { postEvent, readUser, recommend, ServiceError } from "./api.js";
import { learn, remember } from "./catalogue.js";

const PAGE = 40;

/** Works on plain http too, where crypto.randomUUID is missing. */
export function randomId(length) {
  const bytes = crypto.getRandomValues(new Uint8Array(length));
  return Array.from(bytes, (byte) => "abcdefghjkmnpqrstuvwxyz23456789"[byte % 31]).join("");
}

export class Visit {
  /** `onChange` is called after every change of what is to be shown. */
  constructor(onChange) {
    this.onChange = onChange;
    this.k = 10;
    this.turn = 0;
    this.close();
  }

  close() {
    this.turn += 1;
    /** "user": events are stored by the service; "list": the history stays in this browser. */
    this.kind = null;
    this.userId = null;
    /** Oldest first: {key, itemId, eventType, timestamp, isLeftOut}. */
    this.events = [];
    this.historyIsKnown = false;
    /** The last answer of /recommend, the ranks of the one before it (item id → rank) and the time the request took. */
    this.answer = null;
    this.ranksBefore = null;
    this.roundTripMs = null;
    this.numPending = 0;
    this.numReads = 0;
    this.error = null;
    this.again = null;
    this.unmatched = [];
    /** How many of the newest events are shown. */
    this.numShown = PAGE;
  }

  get isBusy() {
    return this.numPending > 0;
  }

  get leftOut() {
    return this.events.filter((event) => event.isLeftOut);
  }

  get kept() {
    return this.events.filter((event) => !event.isLeftOut);
  }

  openUser(userId) {
    this.close();
    this.kind = "user";
    this.userId = userId;
    return this.refresh();
  }

  openList(itemIds, unmatched = []) {
    this.close();
    this.kind = "list";
    this.events = itemIds.map((itemId) => this.#localEvent(itemId));
    this.historyIsKnown = true;
    this.unmatched = unmatched;
    return this.refresh();
  }

  /** Add an item: an event for a user of the service, a line for a pasted list. The ranking follows at once. */
  async add(itemId) {
    if (this.kind === "list") {
      this.events.push(this.#localEvent(itemId));
      return this.refresh();
    }
    const event = { event_id: `page-${randomId(16)}`, user_id: this.userId, item_id: itemId };
    const shown = this.answer?.items.find((item) => item.item_id === itemId);
    if (shown) Object.assign(event, { recommendation_id: this.answer.recommendation_id, position: shown.rank });
    const turn = this.turn;
    return this.#attempt(async () => {
      await postEvent(event);
      if (turn === this.turn) await this.#read();
    });
  }

  /** Leave an event out, or put it back. The stored history stays as it is. */
  toggle(key) {
    const event = this.events.find((one) => one.key === key);
    event.isLeftOut = !event.isLeftOut;
    return this.refresh();
  }

  putAllBack() {
    for (const event of this.events) event.isLeftOut = false;
    return this.refresh();
  }

  showMore() {
    this.numShown += PAGE;
    return this.#attempt(() => this.#learnShown());
  }

  setSize(k) {
    this.k = k;
    this.answer = null;
    this.ranksBefore = null;
    return this.kind === null ? undefined : this.refresh();
  }

  refresh() {
    return this.#attempt(() => this.#read());
  }

  retry() {
    return this.again ? this.#attempt(this.again) : this.refresh();
  }

  async #attempt(action) {
    const turn = this.turn;
    this.numPending += 1;
    this.error = null;
    this.onChange();
    let failure = null;
    try {
      await action();
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error;
      failure = error;
    }
    if (turn !== this.turn) return;
    this.numPending -= 1;
    if (failure) {
      this.error = failure;
      this.again = action;
    }
    this.onChange();
  }

  /**
   * Ranking first, then the history: an answer of /recommend says whether there is one to read.
   * With events left out it is the other way round, because the ranking needs the rest of the history.
   */
  async #read() {
    if (this.kind === "user" && this.leftOut.length > 0) await this.#readHistory();
    await this.#rank();
    if (this.kind === "user" && this.leftOut.length === 0 && this.answer && !this.answer.degraded) {
      if (this.answer.history_length > 0) await this.#readHistory();
      else this.#keep([]);
    }
    await this.#learnShown();
  }

  async #readHistory() {
    const turn = this.turn;
    const { history } = await readUser(this.userId);
    if (turn !== this.turn) return;
    this.#keep(history);
    this.onChange();
  }

  async #rank() {
    const turn = this.turn;
    const read = (this.numReads += 1);
    const request = this.#request();
    const started = performance.now();
    const answer = request === null ? null : await recommend({ ...request, k: this.k });
    const roundTripMs = performance.now() - started;
    // A newer request is on its way: two quick clicks must not end with the first one's answer.
    if (turn !== this.turn || read !== this.numReads) return;
    for (const item of answer?.items ?? []) remember(item.item_id, item.attributes);
    this.ranksBefore = this.answer && new Map(this.answer.items.map((item) => [item.item_id, item.rank]));
    this.answer = answer;
    this.roundTripMs = roundTripMs;
    this.onChange();
  }

  /** Titles for the part of the history that is shown. */
  async #learnShown() {
    if (this.numShown > 0) await learn(this.events.slice(-this.numShown).map((event) => event.itemId));
  }

  /** The caller's part of the body of /recommend; null when there is nothing to rank from. */
  #request() {
    if (this.kind === "user" && this.leftOut.length === 0) return { user_id: this.userId };
    if (this.kept.length === 0) return null;
    if (this.kind === "list") return { history: this.kept.map((event) => event.itemId) };
    const history = this.kept.map(({ itemId, timestamp, eventType }) => ({ item_id: itemId, timestamp, event_type: eventType }));
    return { history };
  }

  /** Take over the stored history, and leave out again what was left out before. */
  #keep(history) {
    const leftOut = new Set(this.leftOut.map((event) => event.key));
    const times = new Map();
    this.events = history.map(({ item_id: itemId, event_type: eventType, timestamp }) => {
      const name = `${timestamp} ${eventType} ${itemId}`;
      const repeat = times.get(name) ?? 0;
      times.set(name, repeat + 1);
      const key = `${name} ${repeat}`;
      return { key, itemId, eventType, timestamp, isLeftOut: leftOut.has(key) };
    });
    this.historyIsKnown = true;
  }

  #localEvent(itemId) {
    return { key: randomId(12), itemId, eventType: null, timestamp: null, isLeftOut: false };
  }
}
