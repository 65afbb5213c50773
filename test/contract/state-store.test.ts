/** The state store on a Postgres server and on the embedded database. */
import { rm } from "node:fs/promises";
import { openEmbeddedDatabase } from "../../gateway/main/embedded-database.ts";
import { migrate } from "../../gateway/main/migrate.ts";
import { openDatabase } from "../../gateway/store/database.ts";
import { createStateStore } from "../../gateway/store/state-store.ts";
import { systemClock } from "../../gateway/system/clock.ts";
import { makeDataFolder } from "../support/embedded-database.ts";
import { createDatabase, startPostgres } from "../support/postgres.ts";
import { stateStoreContract } from "./state-store.contract.ts";

stateStoreContract("Postgres", {
  durable: true,
  open: async () => {
    const server = await startPostgres();
    const { url, drop } = await createDatabase(server);
    let database = openDatabase(url, { max: 10 });
    await migrate(database.db);
    return {
      store: createStateStore(database, systemClock),
      reopen: async () => {
        await database.close(1_000);
        database = openDatabase(url, { max: 10 });
        return createStateStore(database, systemClock);
      },
      close: async () => {
        await database.close(1_000);
        await drop();
        await server.stop();
      },
    };
  },
});

stateStoreContract("PGlite", {
  durable: true,
  open: async () => {
    const data_dir = await makeDataFolder();
    let database = await openEmbeddedDatabase(data_dir);
    return {
      store: createStateStore(database, systemClock),
      reopen: async () => {
        await database.close(1_000);
        database = await openEmbeddedDatabase(data_dir);
        return createStateStore(database, systemClock);
      },
      close: async () => {
        await database.close(1_000);
        await rm(data_dir, { recursive: true });
      },
    };
  },
});
