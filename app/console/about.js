/** One line about the live model: what it ranks, when it was made, and how it measured beside the best baseline. */

import { readModels, ServiceError } from "./api.js";
import { byId } from "./dom.js";

const METRIC = "ndcg@10";

export async function showModel() {
  let live;
  try {
    ({ live } = await readModels());
  } catch (error) {
    // The ranking above shows its own problem; this line is an extra and stays away.
    if (error instanceof ServiceError) return;
    throw error;
  }
  if (!live) return;
  byId("about").textContent = [`Ranks ${live.num_items.toLocaleString("en")} items`, `made ${live.created_at.slice(0, 10)}`, measured(live.metrics)].filter(Boolean).join(" · ");
  byId("about").hidden = false;
}

/** "NDCG@10 0.118, best baseline 0.111 (rules)" */
function measured(metrics) {
  const own = metrics?.model?.[METRIC];
  if (own === undefined) return null;
  const others = Object.entries(metrics.baselines).map(([name, values]) => [name, values[METRIC] ?? 0]);
  const [best] = others.sort((one, other) => other[1] - one[1]);
  return `NDCG@10 ${own.toFixed(3)}${best ? `, best baseline ${best[1].toFixed(3)} (${best[0].replaceAll("_", " ")})` : ""}`;
}
