/** What the page knows about items: attributes by id, and ids by title. */

import { readItem, searchTitles, ServiceError } from "./api.js";

const known = new Map();
const PARALLEL = 6;

/** Keep attributes that came with another answer. */
export function remember(itemId, attributes) {
  if (attributes && Object.keys(attributes).length > 0) known.set(itemId, attributes);
}

export const isKnown = (itemId) => known.has(itemId);

export const attributesOf = (itemId) => known.get(itemId) ?? {};

const ARTICLES = "the|an?|il|la|le|les|der|die|das|el";
const LEADING = new RegExp(`^(${ARTICLES})\\s+(.+)$`, "i");
const TRAILING = new RegExp(`^(.+),\\s*(${ARTICLES})$`, "i");

/** The title as one says it ("Godfather, The" is shown as "The Godfather"), or the id where an item has none. */
export function titleOf(itemId) {
  const { title } = attributesOf(itemId);
  if (typeof title !== "string" || title === "") return itemId;
  return title.replace(TRAILING, "$2 $1");
}

/** "Fargo (1996)" */
export function nameOf(itemId) {
  const { year } = attributesOf(itemId);
  return year ? `${titleOf(itemId)} (${year})` : titleOf(itemId);
}

export function genresOf(itemId) {
  const { genres } = attributesOf(itemId);
  if (Array.isArray(genres)) return genres.map(String);
  return typeof genres === "string" && genres !== "" ? [genres] : [];
}

/** Read the attributes that are missing, a few requests at a time. An item that the catalogue lacks keeps its id as its name. */
export async function learn(itemIds) {
  const missing = [...new Set(itemIds)].filter((id) => !known.has(id));
  const worker = async () => {
    for (let id = missing.pop(); id !== undefined; id = missing.pop()) {
      try {
        known.set(id, (await readItem(id)).attributes ?? {});
      } catch (error) {
        if (!(error instanceof ServiceError && error.status === 404)) throw error;
        known.set(id, {});
      }
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, worker));
}

/** The ids of items whose title begins with the text. */
async function find(prefix, limit) {
  const { items } = await searchTitles(prefix, limit);
  for (const item of items) remember(item.item_id, item.attributes);
  return items.map((item) => item.item_id);
}

/** As `find`, for text as one says it: "the godf" also finds "Godfather, The". */
export async function search(text, limit) {
  const found = await find(text, limit);
  const leading = LEADING.exec(text);
  if (!leading) return found;
  const listed = await find(leading[2], limit);
  const said = listed.filter((id) => titleOf(id).toLowerCase().startsWith(text.toLowerCase()));
  return [...new Set([...found, ...said])].slice(0, limit);
}

const plain = (title) => title.toLowerCase().replace(/[\s.:!?'"-]+/g, " ").trim();

/**
 * The spellings under which a catalogue may list a title.
 * "The Usual Suspects" → ["The Usual Suspects", "Usual Suspects, The"]; the other way round as well.
 */
function spellings(title) {
  const leading = LEADING.exec(title);
  const trailing = TRAILING.exec(title);
  if (leading) return [title, `${leading[2]}, ${leading[1]}`];
  if (trailing) return [title, `${trailing[2]} ${trailing[1]}`];
  return [title];
}

/**
 * Match pasted lines with the catalogue: {itemIds, unmatched}, both in the order of the lines.
 * A year in brackets decides between films of one name; an exact title is preferred to a longer one that begins alike.
 */
export async function matchTitles(lines) {
  const itemIds = [];
  const unmatched = [];
  for (const line of lines) {
    const parts = /^(.*?)\s*\((\d{4})\)\s*$/.exec(line);
    const [title, year] = parts ? [parts[1], Number(parts[2])] : [line, null];
    const found = [];
    for (const spelling of spellings(title)) found.push(...(await find(spelling, 20)));
    const fitting = year === null ? found : found.filter((id) => Number(attributesOf(id).year) === year);
    const wanted = spellings(title).map(plain);
    const exact = fitting.find((id) => wanted.includes(plain(titleOf(id))));
    const best = exact ?? fitting[0];
    if (best === undefined) unmatched.push(line);
    else itemIds.push(best);
  }
  return { itemIds, unmatched };
}
