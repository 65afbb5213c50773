/** What the engine library said last, out of all that its process wrote. Pure. */

/** Begins the crash report of a runtime, which says nothing of the library. */
const reportLine = /^={20,}$/;
/** A place in a source, with the folders of whoever built it. */
const builtPlace = /(?:\/[\w.-]+)+\/([\w.-]+:\d+)/g;

/** The lines before a crash report of the runtime, without empty ones and without folders of the library's build. */
export function libraryWords(lines: readonly string[]): readonly string[] {
  const report = lines.findIndex((line) => reportLine.test(line));
  const own = report < 0 ? lines : lines.slice(0, report);
  return own.filter((line) => line.trim() !== "").map((line) => line.replaceAll(builtPlace, "$1"));
}
