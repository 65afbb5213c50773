import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readSettings } from "../settings/settings.ts";
import { takeLock } from "../system/lock.ts";
import { findTarget } from "./target.ts";

const folder = mkdtempSync(join(tmpdir(), "sllm-target-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function targetWith(variables: Record<string, string>, url?: string) {
  const settings = readSettings([], undefined, { variables, folder, root: folder });
  return findTarget(url, settings);
}

describe("the gateway that a command talks to", () => {
  test("is the default address when nothing runs and nothing is said", () => {
    expect(targetWith({}).url).toBe("http://127.0.0.1:8343");
  });

  test("is the one of --url before all others, without a slash at its end", () => {
    expect(targetWith({ SLLM_GATEWAY_PORT: "1" }, "https://models.example.com/").url).toBe(
      "https://models.example.com",
    );
  });

  test("comes with the first key and the admin token of the settings", () => {
    const keys = { SLLM_GATEWAY_API_KEYS: "first-key-of-sixteen,other-key-of-sixteen" };
    const target = targetWith({ ...keys, SLLM_GATEWAY_ADMIN_TOKEN: "admin-token-of-sixteen" });
    expect(target).toMatchObject({ api_key: "first-key-of-sixteen", admin_token: "admin-token-of-sixteen" });
  });

  test("is called where it can be reached, also when it listens everywhere", () => {
    const everywhere = { SLLM_GATEWAY_ADMIN_TOKEN: "admin-token-of-sixteen", SLLM_GATEWAY_PORT: "9" };
    expect(targetWith({ ...everywhere, SLLM_GATEWAY_HOST: "0.0.0.0" }).url).toBe("http://127.0.0.1:9");
    expect(targetWith({ ...everywhere, SLLM_GATEWAY_HOST: "::" }).url).toBe("http://[::1]:9");
    expect(targetWith({ ...everywhere, SLLM_GATEWAY_HOST: "fd00::7" }).url).toBe("http://[fd00::7]:9");
  });

  test("is the running one of the data folder, unless the settings name a port", () => {
    const data_dir = mkdtempSync(join(folder, "data-"));
    const lock = takeLock(data_dir);
    expect(() => targetWith({ SLLM_DATA_DIR: data_dir })).toThrow("still starting");
    lock.announce("http://127.0.0.1:4711");
    expect(targetWith({ SLLM_DATA_DIR: data_dir }).url).toBe("http://127.0.0.1:4711");
    expect(targetWith({ SLLM_DATA_DIR: data_dir, SLLM_GATEWAY_PORT: "9" }).url).toBe("http://127.0.0.1:9");
    lock.release();
    expect(targetWith({ SLLM_DATA_DIR: data_dir }).url).toBe("http://127.0.0.1:8343");
  });

  test.each(["127.0.0.1:8343", "ftp://x", "models"])("is not %p, which is no address of HTTP", (url) => {
    expect(() => targetWith({}, url)).toThrow("--url takes an address");
  });
});
