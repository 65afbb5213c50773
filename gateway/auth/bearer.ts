/** Checks `Authorization: Bearer` headers against accepted tokens, in time that does not depend on their content. */

const encoder = new TextEncoder();
const scheme = /^Bearer +(\S+) *$/i;

/**
 * A check for one set of tokens. Every accepted token is compared whole, so the time tells neither which one
 * matched nor how many characters did. With no accepted tokens the check refuses everything.
 */
export function createBearerCheck(accepted: readonly string[]): (header: string | undefined) => boolean {
  const find = createBearerSearch(accepted);
  return (header) => find(header) !== null;
}

/** As the check, and says which of the tokens it is; null for none. */
export function createBearerSearch(
  accepted: readonly string[],
): (header: string | undefined) => number | null {
  const tokens = accepted.map((token) => encoder.encode(token));
  return (header) => {
    const given = encoder.encode(scheme.exec(header ?? "")?.[1] ?? "");
    let place = 0;
    for (const [i, token] of tokens.entries()) place += equalBytes(given, token) * (i + 1 - place);
    return place === 0 ? null : place - 1;
  };
}

/** 1 when equal, else 0. Looks at every byte of `secret` whatever `given` holds. */
function equalBytes(given: Uint8Array, secret: Uint8Array): number {
  let difference = given.length ^ secret.length;
  for (let i = 0; i < secret.length; i++) difference |= (given[i] ?? 0) ^ (secret[i] ?? 0);
  return difference === 0 ? 1 : 0;
}
