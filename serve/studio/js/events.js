// Server-sent events out of the body of a POST, which EventSource cannot make. HTML standard, section 9.2.6.

/** Yield {event, data} for each event of a stream of bytes; comments and ids are passed over. */
export async function* eventsOf(stream) {
  let event = "message";
  let data = [];
  for await (const line of linesOf(stream)) {
    if (line === "") {
      if (data.length) yield { event, data: data.join("\n") };
      event = "message";
      data = [];
      continue;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") event = value;
    if (field === "data") data.push(value);
  }
}

/** Yield the lines of a stream of UTF-8, which may end in \n, \r\n or \r; a last one without an end is left out. */
async function* linesOf(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += value;
      // a \r at the very end may be half of a \r\n
      const lines = rest.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      yield* lines;
    }
  } finally {
    // whoever stops listening half-way closes the connection, and so the request
    await reader.cancel().catch(() => undefined);
  }
}
