// One thing asked of one client library: `node ask.mjs '{"client": …, "op": …, "model": …, "url": …, "key": …}'` prints {"value"} or {"status"}.
// Operations as in adapters.py: say, stream, call, shape, see.
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { generateObject, generateText, streamText, tool } from 'ai';
import { z } from 'zod';

const { client, op, model, url, key } = JSON.parse(process.argv[2]);
const ASK = 'What is the weather in Paris?';
const PARAMETERS = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'], additionalProperties: false };
const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
const PICTURE = `data:image/png;base64,${PNG}`;

function openai() {
  const sdk = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
  const ask = (content, more = {}) => sdk.chat.completions.create({ model, messages: [{ role: 'user', content }], ...more });
  const text = (reply) => reply.choices[0].message.content ?? '';
  return {
    say: async () => text(await ask(ASK)),
    stream: async () => {
      let said = '';
      for await (const chunk of await ask(ASK, { stream: true })) said += chunk.choices[0]?.delta?.content ?? '';
      return said;
    },
    call: async () => {
      const tools = [{ type: 'function', function: { name: 'weather', parameters: PARAMETERS } }];
      return ((await ask(ASK, { tools })).choices[0].message.tool_calls ?? []).map((each) => [each.function.name, JSON.parse(each.function.arguments)]);
    },
    shape: async () => JSON.parse(text(await ask(ASK, {
      response_format: { type: 'json_schema', json_schema: { name: 'answer', schema: PARAMETERS, strict: true } },
    }))),
    see: async () => text(await ask([{ type: 'text', text: ASK }, { type: 'image_url', image_url: { url: PICTURE } }])),
  };
}

function responses() {
  const sdk = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
  const ask = (input, more = {}) => sdk.responses.create({ model, input, ...more });
  return {
    say: async () => (await ask(ASK)).output_text,
    stream: async () => {
      let said = '';
      for await (const event of await ask(ASK, { stream: true })) if (event.type === 'response.output_text.delta') said += event.delta;
      return said;
    },
    call: async () => {
      const tools = [{ type: 'function', name: 'weather', parameters: PARAMETERS, strict: true }];
      return (await ask(ASK, { tools })).output.filter((item) => item.type === 'function_call').map((item) => [item.name, JSON.parse(item.arguments)]);
    },
    shape: async () => JSON.parse((await ask(ASK, { text: { format: { type: 'json_schema', name: 'answer', schema: PARAMETERS, strict: true } } })).output_text),
    see: async () => (await ask([{ role: 'user', content: [{ type: 'input_text', text: ASK }, { type: 'input_image', image_url: PICTURE, detail: 'auto' }] }])).output_text,
  };
}

function anthropic() {
  const sdk = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0 });
  const ask = (content, more = {}) => sdk.messages.create({ model, max_tokens: 500, messages: [{ role: 'user', content }], ...more });
  const text = (reply) => reply.content.filter((block) => block.type === 'text').map((block) => block.text).join('');
  return {
    say: async () => text(await ask(ASK)),
    stream: async () => text(await sdk.messages.stream({ model, max_tokens: 500, messages: [{ role: 'user', content: ASK }] }).finalMessage()),
    call: async () => (await ask(ASK, { tools: [{ name: 'weather', input_schema: PARAMETERS }] })).content
      .filter((block) => block.type === 'tool_use').map((block) => [block.name, block.input]),
    shape: async () => JSON.parse(text(await ask(ASK, { output_config: { format: { type: 'json_schema', schema: PARAMETERS } } }))),
    see: async () => text(await ask([
      { type: 'text', text: ASK }, { type: 'image', source: { type: 'base64', media_type: 'image/png', data: PNG } },
    ])),
  };
}

function vercel(made) {
  const common = { model: made, maxRetries: 0 };
  const weather = tool({ description: 'x', inputSchema: z.object({ city: z.string() }).loose() });
  return {
    say: async () => (await generateText({ ...common, prompt: ASK })).text,
    stream: async () => {
      let said = '';
      const stream = streamText({ ...common, prompt: ASK, onError: ({ error }) => { throw error; } });
      for await (const part of stream.textStream) said += part;
      return said;
    },
    call: async () => (await generateText({ ...common, prompt: ASK, tools: { weather } })).toolCalls.map((each) => [each.toolName, each.input]),
    shape: async () => (await generateObject({ ...common, prompt: ASK, schema: z.object({ city: z.string().optional() }).loose() })).object,
    see: async () => (await generateText({
      ...common, messages: [{ role: 'user', content: [{ type: 'text', text: ASK }, { type: 'image', image: PICTURE }] }],
    })).text,
  };
}

const CLIENTS = {
  'openai': openai,
  'openai-responses': responses,
  'anthropic': anthropic,
  'vercel-openai': () => vercel(createOpenAI({ baseURL: `${url}/v1`, apiKey: key }).chat(model)),
  'vercel-responses': () => vercel(createOpenAI({ baseURL: `${url}/v1`, apiKey: key }).responses(model)),
  'vercel-anthropic': () => vercel(createAnthropic({ baseURL: `${url}/v1`, apiKey: key })(model)),
};

try {
  console.log(JSON.stringify({ value: await CLIENTS[client]()[op]() }));
} catch (error) {
  console.log(JSON.stringify({ status: error.status ?? error.statusCode ?? error.lastError?.statusCode ?? 0, message: String(error.message) }));
}
