// The brief's load: chat requests at a fixed rate through an open model, then as fast as they are answered.
import http from 'k6/http';
import { check } from 'k6';

const RATE = Number(__ENV.RATE);
const SECONDS = Number(__ENV.SECONDS);
const body = JSON.stringify({
  model: __ENV.MODEL,
  messages: [
    { role: 'system', content: 'You are a helpful assistant.' },
    { role: 'user', content: 'What is the capital of France?' },
  ],
});
const params = { headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${__ENV.KEY}` } };

export const options = {
  discardResponseBodies: true,
  summaryTrendStats: ['avg', 'med', 'p(95)', 'p(99)', 'max'],
  scenarios: RATE
    ? { load: { executor: 'constant-arrival-rate', rate: RATE, timeUnit: '1s', duration: `${SECONDS}s`, preAllocatedVUs: 50, maxVUs: 200 } }
    : { load: { executor: 'constant-vus', vus: Number(__ENV.VUS), duration: `${SECONDS}s` } },
};

export default function () {
  const reply = http.post(__ENV.URL, body, params);
  check(reply, { 'status is 200': (r) => r.status === 200 });
}
