// Reads the answer of a view that returns `stream_response`: server-sent events in the body of a
// fetch(). (EventSource can send GET only, and a GET must not bill anybody.)
//
//   for await (const [kind, data] of quotaEvents(response.body)) ...
//
// `kind` is "delta", "done" or "error", and `data` the object that docs/ai-calls.rst describes.
// Load it with an ordinary <script src> before the script that uses it.
async function* quotaEvents(stream) {
  let buffer = "";
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (let result = await reader.read(); !result.done; result = await reader.read()) {
      buffer += result.value;
      const events = buffer.split("\n\n");
      buffer = events.pop();
      for (const event of events) {
        if (event.startsWith(":")) continue; // a comment, sent while the model is silent
        const [kind, data] = event.split("\n");
        yield [kind.slice("event: ".length), JSON.parse(data.slice("data: ".length))];
      }
    }
  } finally {
    await reader.cancel(); // where the caller stops early, so does the call at Quota
  }
}
