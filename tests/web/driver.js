// Runs the engine of an exported page without a browser: node driver.js PAGE < requests.json > answers.json
//
// Requests: {"encode": [texts], "special": true}, {"decode": [[ids]]}, {"prompts": [texts]}, {"read": [[text, ids]]},
// {"sums": [texts]} (what the calculator adds),
// {"ends": [ids]} (what ends a text from now on), {"write": {what a page asks}}; an answer each, in their order.
'use strict';
const fs = require('fs');

const page = fs.readFileSync(process.argv[2], 'utf8');
const block = id => page.match(new RegExp(`<script[^>]* id="${id}">([^]*?)</script>`))[1];
const bytes = id => Uint8Array.from(Buffer.from(block(id), 'base64')).buffer;

async function main() {
  const ENGINE = new Function(block('engine') + 'return ENGINE;')();
  const data = JSON.parse(block('data'));
  let receive;
  const host = { postMessage: message => receive && receive(message) };
  const { session, calculated } = ENGINE(host);
  const until = (send, ends) => new Promise((done, failed) => {
    const all = [];
    receive = message => {
      all.push(message);
      if (message.is === 'error') failed(new Error(message.text));
      if (message.is === ends) done(all);
    };
    host.onmessage({ data: send });
  });
  await until({ do: 'open', wasm: bytes('wasm'), flat: bytes('weights'), data }, 'ready');
  const { tokenizer, answers } = session;
  const answered = [];
  for (const request of JSON.parse(fs.readFileSync(0, 'utf8'))) {
    if (request.encode) answered.push(request.encode.map(text => tokenizer.encode(text, !!request.special)));
    else if (request.decode) answered.push(request.decode.map(ids => tokenizer.decode(ids)));
    else if (request.prompts) answered.push(request.prompts.map(text => answers.promptIds(text)));
    else if (request.read) answered.push(request.read.map(([text, ids]) => answers.read(text, ids)));
    else if (request.sums) answered.push(request.sums.map(text => calculated(text)));
    else if (request.ends) answered.push((session.data.ends = request.ends));
    else {
      const all = await until({ do: 'write', sampling: null, ...request.write }, 'done');
      const tokens = all.flatMap(message => message.tokens && message.is === 'tokens' ? message.tokens : []);
      const done = all[all.length - 1];
      const text = tokens.map(token => token.text).join('') + done.rest;
      answered.push({ ...done, written: done.tokens, ids: tokens.filter(token => !token.end).map(token => token.id), text, tokens: tokens.slice(0, 4) });
    }
  }
  fs.writeSync(1, JSON.stringify(answered));
}

main().catch(error => {
  console.error(error);
  process.exit(1);
});
