/** Whose requests come in, by the API key they show: the tenant and the highest priority it may ask for. */
import { parseApiKey } from "../../schema/api-key.ts";
import type { Priority } from "../../schema/vocab.ts";
import { createBearerSearch } from "./bearer.ts";

export interface Client {
  readonly tenant: string;
  readonly highest_priority: Priority;
}

/** Whoever comes where the API is open. */
export const anyone: Client = { tenant: "anyone", highest_priority: "high" };

/**
 * A search for the client of an `Authorization` header; null for none. Keys without a tenant's name are tenants by their
 * place in the list, so gateways with the same list name them alike.
 */
export function createClientSearch(
  api_keys: readonly string[],
): (authorization: string | undefined) => Client | null {
  const keys = api_keys.map(parseApiKey);
  const find = createBearerSearch(keys.map(({ token }) => token));
  const clients = keys.map(({ tenant, highest_priority }, i) => ({
    tenant: tenant ?? `key-${i + 1}`,
    highest_priority,
  }));
  return (authorization) => {
    const place = find(authorization);
    return place === null ? null : (clients[place] ?? null);
  };
}
