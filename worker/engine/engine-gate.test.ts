import { expect, test } from "bun:test";
import { enterEngine, leaveEngine, shutEngine } from "./engine-gate.ts";
import { controlWords } from "./pump-messages.ts";

test("an engine is entered until it is shut, and it is shut when all have left", () => {
  const control = new Int32Array(new SharedArrayBuffer(controlWords * Int32Array.BYTES_PER_ELEMENT));
  expect(enterEngine(control)).toBe(true);
  expect(enterEngine(control)).toBe(true);
  leaveEngine(control);
  leaveEngine(control);
  shutEngine(control);
  expect(enterEngine(control)).toBe(false);
  shutEngine(control);
  expect(enterEngine(control)).toBe(false);
});

test("whoever shuts an engine waits for a thread that is inside", async () => {
  const control = new Int32Array(new SharedArrayBuffer(controlWords * Int32Array.BYTES_PER_ELEMENT));
  expect(enterEngine(control)).toBe(true);
  const gate = new URL("./engine-gate.ts", import.meta.url).href;
  const program = `
    import { shutEngine } from ${JSON.stringify(gate)};
    onmessage = ({ data }) => { postMessage("shutting"); shutEngine(data); postMessage("shut"); };`;
  const thread = new Worker(URL.createObjectURL(new Blob([program], { type: "application/typescript" })));
  const said: string[] = [];
  const heard = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  thread.onmessage = ({ data }) => heard[said.push(data) - 1]?.resolve();
  thread.postMessage(control);
  await heard[0]?.promise;
  expect(said).toEqual(["shutting"]);
  leaveEngine(control);
  await heard[1]?.promise;
  expect(said).toEqual(["shutting", "shut"]);
  thread.terminate();
});
