/** The committed migrations as data, so that they travel with every bundle. In the order of drizzle's journal. */
import initial from "../../schema/db/migrations/0000_initial.sql" with { type: "text" };
import workerLinks from "../../schema/db/migrations/0001_worker_links.sql" with { type: "text" };
import estimates from "../../schema/db/migrations/0002_estimates.sql" with { type: "text" };
import kvSettings from "../../schema/db/migrations/0003_kv_settings.sql" with { type: "text" };
import severalGateways from "../../schema/db/migrations/0004_several_gateways.sql" with { type: "text" };
import scaling from "../../schema/db/migrations/0005_scaling.sql" with { type: "text" };
import adapters from "../../schema/db/migrations/0006_adapters.sql" with { type: "text" };
import streams from "../../schema/db/migrations/0007_streams.sql" with { type: "text" };

export interface Migration {
  /** Name of the file without its ending. */
  readonly name: string;
  readonly sql: string;
}

export const migrations: readonly Migration[] = [
  { name: "0000_initial", sql: initial },
  { name: "0001_worker_links", sql: workerLinks },
  { name: "0002_estimates", sql: estimates },
  { name: "0003_kv_settings", sql: kvSettings },
  { name: "0004_several_gateways", sql: severalGateways },
  { name: "0005_scaling", sql: scaling },
  { name: "0006_adapters", sql: adapters },
  { name: "0007_streams", sql: streams },
];
