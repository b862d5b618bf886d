/** Splits a streaming response into lines; a response that breaks off throws, which node:readline does not do. */
import type { IncomingMessage } from 'node:http';
import { StringDecoder } from 'node:string_decoder';
import { ScrimError } from 'scrim';

const LONGEST_LINE = 16 * 1024 * 1024;

/** Lines of `response` without their ends; the last one too, if it is not empty. */
export async function* linesOf(response: IncomingMessage): AsyncGenerator<string, void, undefined> {
  const decoder = new StringDecoder('utf8');
  let rest = '';
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      rest += decoder.write(chunk);
      let start = 0;
      for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n', start)) {
        yield rest.slice(start, end).replace(/\r$/, '');
        start = end + 1;
      }
      rest = rest.slice(start);
      if (rest.length > LONGEST_LINE) throw new ScrimError('LIMIT_EXCEEDED', `a line is longer than ${LONGEST_LINE}`);
    }
  } finally {
    response.destroy();
  }
  rest += decoder.end();
  if (rest !== '') yield rest;
}
