/**
 * A program that only passes requests on: the least that a hop through this runtime and machine costs. Takes the URL to
 * pass them to, prints its own, and ends with its standard input.
 */
import process from "node:process";

const [target] = process.argv.slice(2);
if (target === undefined) throw new Error("the URL to pass requests to is missing");

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  idleTimeout: 0,
  async fetch(request) {
    const { method, headers } = request;
    const url = `${target}${new URL(request.url).pathname}`;
    const answer = await fetch(url, { method, headers, body: await request.text() });
    const type = answer.headers.get("content-type") ?? "text/plain";
    return new Response(answer.body, { status: answer.status, headers: { "content-type": type } });
  },
});
console.log(`http://127.0.0.1:${server.port}`);
for await (const _ of Bun.stdin.stream());
await server.stop(true);
