/** Frames of server-sent events as this system writes them (WHATWG HTML, section 9.2). Pure. */

export interface SseFrame {
  readonly data: string;
  readonly id?: string | undefined;
  readonly event?: string | undefined;
}

/** One event. `data` may hold line ends; `id` and `event` must not. */
export function encodeSseFrame(frame: SseFrame): string {
  let text = "";
  if (frame.event !== undefined) text += `event: ${frame.event}\n`;
  if (frame.id !== undefined) text += `id: ${frame.id}\n`;
  for (const line of frame.data.split(/\r\n|\r|\n/)) text += `data: ${line}\n`;
  return `${text}\n`;
}

/** A comment: keeps a connection alive and informs people, never a parser. */
export function encodeSseComment(text: string): string {
  return `: ${text.replace(/[\r\n]+/g, " ")}\n\n`;
}

/** The headers of every event stream we answer with. */
export const sseHeaders = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache, no-transform",
  "x-accel-buffering": "no",
} as const;
