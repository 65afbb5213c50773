/** Which gateway a command talks to. */
import { firstToken } from "../../../schema/api-key.ts";
import { CommandFailure, UsageError } from "../failure.ts";
import type { Settings } from "../settings/settings.ts";
import { readLock } from "../system/lock.ts";
import type { GatewayTarget } from "./gateway-client.ts";

/** Flag of every command that talks to a gateway. */
export const urlArg = {
  url: {
    type: "string",
    valueHint: "url",
    description: "Gateway to talk to; the one on this machine if left out",
  },
} as const;

/**
 * `--url`; else the address in the settings, if one was set; else what a running `sllm up` of the same data folder
 * wrote down (it may have taken a free port); else the default address.
 */
export function findTarget(url: string | undefined, settings: Settings): GatewayTarget {
  const { gateway, data_dir } = settings.config;
  const keys = { admin_token: gateway.admin_token, api_key: firstToken(gateway.api_keys) };
  if (url !== undefined) return { url: baseUrl(url), ...keys };
  if (!settings.isSet("gateway", "port") && !settings.isSet("gateway", "host")) {
    const running = readLock(data_dir);
    if (running?.isAlive === true)
      return { url: running.owner.url ?? stillStarting(running.owner.pid), ...keys };
  }
  return { url: `http://${hostToCall(gateway.host)}:${gateway.port}`, ...keys };
}

function stillStarting(pid: number): never {
  throw new CommandFailure(`sllm is still starting (process ${pid})`, { advice: "Try again in a moment." });
}

/** An address to listen on is not always one to call. */
function hostToCall(host: string): string {
  if (host === "0.0.0.0") return "127.0.0.1";
  if (host === "::") return "[::1]";
  return host.includes(":") && !isBracketed(host) ? `[${host}]` : host;
}

function isBracketed(host: string): boolean {
  return host.startsWith("[");
}

function baseUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:")) {
    throw new UsageError(`--url takes an address such as http://127.0.0.1:8343, not '${text}'`);
  }
  return url.href.replace(/\/+$/, "");
}
