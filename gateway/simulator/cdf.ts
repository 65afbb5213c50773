/** Distributions as a picture: one line per case, the share of requests below a time, on a logarithmic axis. Pure. */

export interface CdfLine {
  readonly name: string;
  readonly values_ms: Float64Array;
}

const width = 720;
const height = 360;
const margin = { left: 56, right: 16, top: 32, bottom: 44 };
/** Told apart by people who see few colours, too (Okabe and Ito). */
const colours = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999"];
/** Points of a line: more than a screen has columns for it. */
const points = 400;

/** The picture as SVG text. Times below the first mark lie on it. */
export function cdfPicture(title: string, lines: readonly CdfLine[], from_ms = 1, to_ms = 300_000): string {
  const x = (ms: number) => {
    const part = Math.log(Math.max(ms, from_ms) / from_ms) / Math.log(to_ms / from_ms);
    return margin.left + Math.min(1, part) * (width - margin.left - margin.right);
  };
  const y = (share: number) => height - margin.bottom - share * (height - margin.top - margin.bottom);
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">`,
    `<title>${escaped(title)}</title>`,
    `<rect width="${width}" height="${height}" fill="white"/>`,
    `<text x="${margin.left}" y="18" font-size="14">${escaped(title)}</text>`,
    ...grid(x, y, from_ms, to_ms),
  ];
  for (const [i, line] of lines.entries()) {
    const colour = colours[i % colours.length] ?? "black";
    parts.push(
      `<path fill="none" stroke="${colour}" stroke-width="1.5" d="${pathOf(line.values_ms, x, y)}"/>`,
    );
    const top = margin.top + 14 + 16 * i;
    parts.push(`<rect x="${margin.left + 10}" y="${top - 9}" width="12" height="4" fill="${colour}"/>`);
    parts.push(`<text x="${margin.left + 28}" y="${top - 3}">${escaped(line.name)}</text>`);
  }
  return `${[...parts, "</svg>"].join("\n")}\n`;
}

function grid(
  x: (ms: number) => number,
  y: (share: number) => number,
  from_ms: number,
  to_ms: number,
): string[] {
  const parts: string[] = [];
  for (let ms = from_ms; ms <= to_ms; ms *= 10) {
    const at = x(ms).toFixed(1);
    parts.push(`<path stroke="#ddd" d="M${at} ${y(0)}V${y(1)}"/>`);
    parts.push(`<text x="${at}" y="${height - 26}" text-anchor="middle">${timeText(ms)}</text>`);
  }
  for (const share of [0, 0.25, 0.5, 0.75, 0.9, 0.99]) {
    const at = y(share).toFixed(1);
    parts.push(`<path stroke="#ddd" d="M${margin.left} ${at}H${width - margin.right}"/>`);
    parts.push(`<text x="${margin.left - 6}" y="${Number(at) + 4}" text-anchor="end">${share}</text>`);
  }
  const middle = (margin.left + width - margin.right) / 2;
  parts.push(
    `<text x="${middle}" y="${height - 8}" text-anchor="middle">time until an instance serves the request</text>`,
  );
  return parts;
}

function pathOf(values_ms: Float64Array, x: (ms: number) => number, y: (share: number) => number): string {
  const sorted = values_ms.toSorted();
  if (sorted.length === 0) return `M${x(1).toFixed(1)} ${y(0).toFixed(1)}`;
  const steps = Math.min(points, sorted.length);
  const corners = Array.from({ length: steps }, (_, i) => {
    const share = (i + 1) / steps;
    const value = sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? 0;
    return `${x(value).toFixed(1)} ${y(share).toFixed(1)}`;
  });
  return `M${x(sorted[0] ?? 0).toFixed(1)} ${y(0).toFixed(1)}L${corners.join(" ")}`;
}

function timeText(ms: number): string {
  return ms < 1_000 ? `${ms} ms` : `${ms / 1_000} s`;
}

function escaped(text: string): string {
  return text.replace(/[<>&]/g, (sign) => `&#${sign.charCodeAt(0)};`);
}
