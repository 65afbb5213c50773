/** Log lines of gateway and worker (JSON) as people read them: time, role, event, fields. */

export type Verbosity = "notable" | "all";

const shownByDefault = new Set(["warn", "error", "fatal"]);

/** Fields that the text names itself, and stacks, which belong into the JSON only. */
const omitted = new Set(["at", "time", "role", "level", "event", "stack"]);

/** The line for the terminal; null when it is not worth one at this verbosity. */
export function formatLogLine(role: string, line: string, verbosity: Verbosity): string | null {
  const entry = parseEntry(line);
  // Not one of ours: a runtime's or library's own words, which usually tell of trouble.
  if (entry === null) return line.trim() === "" ? null : `${role}: ${line}`;
  const level = String(entry.level ?? "info");
  if (verbosity !== "all" && !shownByDefault.has(level)) return null;
  const fields = Object.entries(entry)
    .filter(
      ([name, value]) => !omitted.has(name) && value !== null && !repeatsReason(name, value, entry.reason),
    )
    .map(([name, value]) => `${name}=${formatValue(value)}`);
  const at = entry.at ?? entry.time;
  const time = typeof at === "string" ? `${at.slice(11, 23)} ` : "";
  const tag = level === "info" ? "" : `${level} `;
  return [`${time}${role}: ${tag}${String(entry.event ?? "")}`, ...fields].join(" ");
}

/** A cause that only says the reason again, with the class of the error before it. */
function repeatsReason(name: string, value: unknown, reason: unknown): boolean {
  return name === "cause" && typeof reason === "string" && String(value).endsWith(reason);
}

function formatValue(value: unknown): string {
  if (typeof value !== "string") return JSON.stringify(value);
  return /^[^\s"=]+$/.test(value) ? value : JSON.stringify(value);
}

function parseEntry(line: string): Record<string, unknown> | null {
  if (!line.startsWith("{")) return null;
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null && "event" in value ? { ...value } : null;
  } catch {
    return null; // starts like JSON and is not: shown as it came
  }
}
