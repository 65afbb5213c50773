/**
 * Bundles the gateway for runtimes that do not run its sources: `bun gateway/main/bundle.ts node|cloudflare <folder>`.
 * Migrations are inside; PGlite stays a package, since it reads its own files, and is not used on Cloudflare.
 */
import path from "node:path";
import process from "node:process";

const bundles = {
  node: {
    // The database's thread is a file of its own.
    entrypoints: ["node.ts", "database-thread.ts"],
    target: "node",
    external: ["@electric-sql/pglite", "@electric-sql/pglite-socket"],
    conditions: [],
  },
  cloudflare: {
    entrypoints: ["cloudflare.ts"],
    target: "browser",
    external: ["node:*", "cloudflare:*"],
    conditions: ["workerd", "worker"],
  },
} as const;

export type BundleTarget = keyof typeof bundles;

/** Writes the bundle into `folder`, as `<entry>.js` each, and returns their paths. Throws what the bundler says. */
export async function bundleGateway(target: BundleTarget, folder: string): Promise<string[]> {
  const { entrypoints, external, conditions, ...options } = bundles[target];
  const result = await Bun.build({
    ...options,
    entrypoints: entrypoints.map((file) => path.join(import.meta.dirname, file)),
    external: [...external],
    conditions: [...conditions],
    format: "esm",
    outdir: folder,
  });
  return result.outputs.map((output) => output.path);
}

if (import.meta.main) {
  const [target, folder] = process.argv.slice(2);
  if ((target !== "node" && target !== "cloudflare") || folder === undefined) {
    console.error("usage: bun gateway/main/bundle.ts node|cloudflare <folder>");
    process.exit(2);
  }
  for (const file of await bundleGateway(target, folder)) console.log(file);
}
