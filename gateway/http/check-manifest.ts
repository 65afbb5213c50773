/** A deployed manifest must be named by its own content: nobody can pass other weights off under a known digest. */
import { digestText } from "../../schema/checkpoint/digest-text.ts";
import type { AnyManifest } from "../../schema/checkpoint/manifest.ts";
import { SllmError } from "../../schema/error.ts";
import { toHex } from "../../schema/ids.ts";

/** Throws `checkpoint_invalid` when the manifest's digest is not the SHA-256 of its canonical text. */
export async function checkManifestDigest(manifest: AnyManifest): Promise<void> {
  const text = new TextEncoder().encode(digestText(manifest));
  const found = toHex(new Uint8Array(await crypto.subtle.digest("SHA-256", text)));
  if (found === manifest.digest) return;
  const message = `manifest.digest: the content has the digest ${found}, not ${manifest.digest}`;
  throw new SllmError("checkpoint_invalid", message, { param: "manifest.digest" });
}
