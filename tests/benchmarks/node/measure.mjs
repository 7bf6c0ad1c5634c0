// What measure.py does, for clients of Node: node measure.mjs cpu|first http|openai|ai MODEL COUNT ADDRESS

import http from 'node:http';

const LONG_ENOUGH = 500; // milliseconds; a shorter measurement is repeated until then
const [kind, name, model, count, address] = process.argv.slice(2);
const base = `${address}/v1`;
const messages = [{ role: 'user', content: 'Write me a song about sparkling water.' }];

// Each client returns `read(model, emit)`, which calls `emit` with each piece of text.
const clients = {
  async http() {
    const agent = new http.Agent({ keepAlive: true });
    const options = { agent, method: 'POST', headers: { 'content-type': 'application/json' } };
    return (model, emit) =>
      new Promise((resolve, reject) => {
        const request = http.request(`${base}/chat/completions`, options, (response) => {
          let rest = '';
          response.setEncoding('utf8');
          response.on('error', reject);
          response.on('end', resolve);
          response.on('data', (data) => {
            const events = (rest + data).split('\n\n');
            rest = events.pop();
            for (const event of events) {
              if (event === 'data: [DONE]') continue;
              const piece = JSON.parse(event.slice(6)).choices[0]?.delta.content;
              if (piece) emit(piece);
            }
          });
        });
        request.on('error', reject);
        request.end(JSON.stringify({ model, messages, stream: true }));
      });
  },

  async openai() {
    const { default: OpenAI } = await import('openai');
    const client = new OpenAI({ apiKey: 'none', baseURL: base, maxRetries: 0 });
    return async (model, emit) => {
      for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
        const piece = chunk.choices[0]?.delta?.content;
        if (piece) emit(piece);
      }
    };
  },

  async ai() {
    const { streamText } = await import('ai');
    const { createOpenAICompatible } = await import('@ai-sdk/openai-compatible');
    const provider = createOpenAICompatible({ name: 'local', baseURL: base, apiKey: 'none' });
    return async (model, emit) => {
      for await (const piece of streamText({ model: provider(model), prompt: messages[0].content }).textStream) {
        if (piece) emit(piece);
      }
    };
  },
};

// The µs of CPU for each token, of all threads, with so many concurrent streams.
async function cpu(read, streams) {
  let tokens = 0;
  await read('burst-1000', () => {});
  const end = performance.now() + LONG_ENOUGH;
  const start = process.cpuUsage();
  do {
    await Promise.all(Array.from({ length: streams }, () => read(model, () => tokens++)));
  } while (performance.now() < end);
  const used = process.cpuUsage(start);
  return (used.user + used.system) / tokens;
}

// The median µs from a call to its first token, after a tenth of the calls as warm-up.
async function first(read, calls) {
  const took = [];
  for (let call = 0; call < calls + Math.floor(calls / 10); call++) {
    let received;
    const start = performance.now();
    await read(model, () => (received ??= performance.now()));
    took.push(received - start);
  }
  return took.slice(Math.floor(calls / 10)).sort((a, b) => a - b)[Math.floor(calls / 2)] * 1000;
}

const read = await clients[name]();
console.log(await { cpu, first }[kind](read, Number(count)));
process.exit(0);
