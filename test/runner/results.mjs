/** Reads the JUnit reports of Bun and CTest and adds them up. Pure. */

/**
 * @typedef {{ name: string, text: string }} Failure
 * @typedef {{ passed: number, failed: number, skipped: number, failures: Failure[] }} Results
 */

/** @returns {Results} */
export function noResults() {
  return { passed: 0, failed: 0, skipped: 0, failures: [] };
}

/** Adds `more` to `total`. */
export function addResults(total, more) {
  total.passed += more.passed;
  total.failed += more.failed;
  total.skipped += more.skipped;
  total.failures.push(...more.failures);
}

/** One more failure that no test case stands for: a crash, a hung stage, a file that could not be loaded. */
export function addFailure(results, name, text) {
  results.failed += 1;
  results.failures.push({ name, text });
}

/**
 * Counts the cases of a JUnit report. Both writers put one `testcase` element per test with an element inside when it
 * did not pass; CTest marks tests that could not run with status "notrun", which counts as skipped only when the test
 * itself said so.
 * @param {string} xml
 * @returns {Results}
 */
export function parseJunit(xml) {
  const results = noResults();
  for (const [, head = "", , body = ""] of xml.matchAll(
    /<testcase\b([^>]*?)(\/>|>([\s\S]*?)<\/testcase>)/g,
  )) {
    const attribute = (name) => unescapeXml(new RegExp(`\\b${name}="([^"]*)"`).exec(head)?.[1] ?? "");
    const place = [attribute("file"), attribute("classname")].filter(
      (part) => part !== "" && part !== attribute("name"),
    );
    const name = [...place, attribute("name")].join(" > ");
    if (/<(failure|error)\b/.test(body)) addFailure(results, name, failureText(body));
    else if (/<skipped\b/.test(body)) results.skipped += 1;
    else if (attribute("status") === "fail") addFailure(results, name, failureText(body));
    else results.passed += 1;
  }
  return results;
}

/** What the report says about the failure: its text, else its message, else the test's output. */
function failureText(body) {
  const element = /<(?:failure|error)\b([^>]*?)(?:\/>|>([\s\S]*?)<\/(?:failure|error)>)/.exec(body);
  const message = /\bmessage="([^"]*)"/.exec(element?.[1] ?? "")?.[1] ?? "";
  const output = /<system-out>([\s\S]*?)<\/system-out>/.exec(body)?.[1] ?? "";
  const text = [element?.[2] ?? "", output]
    .map((part) => unescapeXml(part).trim())
    .filter((part) => part !== "");
  return text.length > 0 ? text.join("\n") : unescapeXml(message).trim();
}

function unescapeXml(text) {
  return text
    .replace(/^<!\[CDATA\[([\s\S]*)\]\]>$/, "$1")
    .replace(/&#x([0-9a-f]+);/gi, (_, hex) => String.fromCodePoint(Number.parseInt(hex, 16)))
    .replace(/&#(\d+);/g, (_, decimal) => String.fromCodePoint(Number(decimal)))
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">")
    .replaceAll("&quot;", '"')
    .replaceAll("&apos;", "'")
    .replaceAll("&amp;", "&");
}

/** The last line of a run. */
export function totalLine({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`;
}
