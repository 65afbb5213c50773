/** Reads an error response, insisting on the envelope. */
import { errorBody } from "../../schema/error.ts";

export interface ReadError {
  readonly status: number;
  readonly code: string;
  readonly param: string | null;
  readonly message: string;
}

/** Throws when the response is not JSON in OpenAI's error envelope. */
export async function readError(response: Response): Promise<ReadError> {
  const type = response.headers.get("content-type");
  if (type !== "application/json") throw new Error(`an error came as ${type}`);
  const { code, param, message } = errorBody.parse(await response.json()).error;
  return { status: response.status, code, param, message };
}
