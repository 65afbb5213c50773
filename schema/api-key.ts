/**
 * API keys as settings name them: `<key>`, `<tenant>:<key>` or `<tenant>/<priority>:<key>`. The tenant is whom requests
 * are counted for, the priority the highest that they may ask for; `normal` unless said otherwise.
 */
import { limits } from "./limits.ts";
import { type Priority, priorities } from "./vocab.ts";

export interface ApiKey {
  /** null: the key has no name of its own. */
  readonly tenant: string | null;
  readonly highest_priority: Priority;
  /** What clients send. */
  readonly token: string;
}

/** Fewer characters could be guessed. */
const leastTokenChars = 16;
const namedKey = /^([a-z0-9][a-z0-9._-]*)(?:\/([a-z]+))?:(.*)$/;

/** Throws a plain error that says what is wrong and does not repeat the key. */
export function parseApiKey(text: string): ApiKey {
  const [, tenant = null, named = "normal", token = text] = namedKey.exec(text) ?? [];
  const highest_priority = priorities.find((priority) => priority === named);
  if (highest_priority === undefined) {
    throw new Error(`'${named}' is no priority; there are ${priorities.join(", ")}`);
  }
  if (tenant !== null && tenant.length > limits.tenant_chars) {
    throw new Error(`a tenant's name has at most ${limits.tenant_chars} characters`);
  }
  if (token.length < leastTokenChars) throw new Error(`use at least ${leastTokenChars} characters`);
  return { tenant, highest_priority, token };
}

/** What this system's own commands send: the first key; undefined where /v1 is open. */
export function firstToken(api_keys: readonly string[]): string | undefined {
  const [first] = api_keys;
  return first === undefined ? undefined : parseApiKey(first).token;
}
