/** The public HTTP API, and nothing else of the service: one function per request that the page makes. */

/**
 * A request that brought no usable answer. `unreachable` says whether the service answered at all;
 * otherwise title, detail, code and requestId are those of its problem details (RFC 9457).
 */
export class ServiceError extends Error {
  constructor({ title, detail, unreachable = false, status = 0, code = null, requestId = null }) {
    super(detail);
    Object.assign(this, { title, detail, unreachable, status, code, requestId });
  }
}

async function call(method, path, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: body === undefined ? { accept: "application/json" } : { accept: "application/json", "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
    });
  } catch {
    throw new ServiceError({
      title: "The service does not answer",
      detail: "It may be stopped or restarting. What it has stored is kept; try again in a moment.",
      unreachable: true,
    });
  }
  let answer = null;
  try {
    answer = await response.json();
  } catch {
    throw new ServiceError({
      title: "The answer could not be read",
      detail: `${method} ${path} answered ${response.status} with something that is no JSON.`,
      status: response.status,
      requestId: response.headers.get("x-request-id"),
    });
  }
  if (!response.ok) {
    throw new ServiceError({
      title: answer.title ?? `The service answered ${response.status}`,
      detail: answer.detail ?? "It gave no reason.",
      status: response.status,
      code: answer.code ?? null,
      requestId: response.headers.get("x-request-id"),
    });
  }
  return answer;
}

const segment = encodeURIComponent;

export const readModels = () => call("GET", "/models");

export const readUser = (userId) => call("GET", `/users/${segment(userId)}`);

export const readItem = (itemId) => call("GET", `/items/${segment(itemId)}`);

export const searchTitles = (prefix, limit) => call("GET", `/items?title_prefix=${segment(prefix)}&limit=${limit}`);

/** The id is made by the caller of `postEvent`, once per event: sending the same one again stores nothing twice. */
export const postEvent = (event) => call("POST", "/events", event);

export const recommend = (request) => call("POST", "/recommend", { ...request, include: ["attributes"] });
