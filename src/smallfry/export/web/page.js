// The page: what is asked goes to the engine, what comes back is shown. Text of models and people is only ever text.

const $ = id => document.getElementById(id);
const DATA = JSON.parse($('data').textContent);
const MODES = {
  job: { label: 'Input', button: 'Answer', hint: 'Enter answers, Shift+Enter begins a line', output: 'What the model wrote' },
  text: { label: 'Text to continue', button: 'Continue', hint: 'Ctrl+Enter continues it', output: 'Text' },
  chat: { label: 'Your message', button: 'Send', hint: 'Enter sends, Shift+Enter begins a line', output: 'Conversation' },
};
const events = new WeakMap(); // what is known of the token of each element
let engine, names, mode, turn, current, started = 0;

const number = (x, digits = 0) => x.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits });
const percent = p => (p >= 0.9995 && p < 1 ? '>99.9' : p < 0.0005 ? '<0.1' : number(100 * p, 1)) + '\u2009%';
const time = ms => (ms < 10 ? number(ms, 1) : ms < 10000 ? number(ms) : number(ms / 1000, 1)) + (ms < 10000 ? ' ms' : ' s');
const shade = p => Math.min(1, Math.log2(p) / -6.7).toFixed(3);
const plural = n => `${number(n)} token${n === 1 ? '' : 's'}`;
const visible = text => (text === '' ? '(nothing)' : text.replace(/^ +| +$/g, spaces => '\u00b7'.repeat(spaces.length))
  .replace(/\r/g, '\u240d').replace(/\n/g, '\u23ce').replace(/\t/g, '\u21e5'));

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function say(state, text) {
  document.body.dataset.state = state;
  $('status').textContent = text;
  $('run').disabled = state !== 'ready';
  $('stop').disabled = state !== 'writing';
  $('fresh').disabled = $('modes').disabled = state === 'writing';
}

// ---- asking ---------------------------------------------------------------------------------------------------------

function value(id, fallback) {
  const field = $(id), found = field.valueAsNumber;
  if (!Number.isFinite(found)) return fallback;
  return Math.min(Math.max(found, field.min === '' ? found : +field.min), field.max === '' ? found : +field.max);
}

function sampling() {
  const seed = Math.floor(value('seed', Math.floor(Math.random() * 2 ** 32)));
  return {
    temperature: value('temperature', DATA.job ? 0 : 0.8), topK: Math.floor(value('top-k', 0)), topP: value('top-p', 1),
    minP: value('min-p', 0), seed,
  };
}

function choose(chosen) {
  mode = chosen;
  const words = MODES[mode];
  $('text-label').textContent = words.label;
  $('run').textContent = words.button;
  $('hint').textContent = words.hint;
  $('output-title').textContent = words.output;
  $('speed-title').textContent = mode === 'job' ? 'Answer after' : 'Speed';
  $('fresh').hidden = mode !== 'chat';
  $('answer-part').hidden = mode !== 'job';
  clear();
}

function clear() {
  hideCard();
  $('output').replaceChildren();
  $('result').hidden = true;
  turn = current = null;
}

function ask(event) {
  event.preventDefault();
  const text = $('text').value;
  if ($('run').disabled || (mode !== 'text' && !text.trim())) return;
  const fresh = !$('output').childElementCount;
  if (mode !== 'chat') clear();
  $('result').hidden = false;
  $('spoken').textContent = '';
  if (mode === 'text') $('output').append(make('span', 'given', text));
  if (mode === 'chat') {
    if (DATA.turns.between === null) clear(), ($('result').hidden = false);
    $('output').append(make('p', 'turn user', text));
    $('text').value = '';
  }
  turn = mode === 'chat' ? make('div', 'turn') : $('output');
  if (mode === 'chat') $('output').append(turn);
  const drawn = sampling();
  $('drawn').textContent = drawn.temperature > 0 ? String(drawn.seed) : 'none: likeliest';
  for (const id of ['speed', 'first', 'count']) $(id).textContent = '\u2013';
  for (const id of ['answer', 'confidence']) $(id).textContent = '';
  $('ranking').hidden = true;
  started = 0;
  say('writing', 'Writing');
  engine({ do: 'write', mode, text, fresh, sampling: drawn, maxNew: Math.floor(value('most', DATA.most)) });
}

// ---- answers --------------------------------------------------------------------------------------------------------

function show(event) {
  const forced = event.forced ? ' forced' : '';
  const span = make('span', 'token' + forced + (event.end ? ' named' : ''), event.text);
  if (event.end) span.dataset.name = 'end';
  else if (event.text === '') span.dataset.name = DATA.special.includes(event.id) ? shortName(names[event.id]) : '\u00b7';
  if (!event.forced) span.style.setProperty('--s', shade(Math.exp(event.logprob)));
  span.tabIndex = started++ || (mode === 'chat' && $('output').querySelector('.token')) ? -1 : 0;
  span.setAttribute('aria-describedby', 'card');
  events.set(span, event);
  return span;
}

const shortName = name => name.replace(/^<\|(?:[ht]:)?(.*)\|>$/, '$1');

const RECEIVED = {
  ready(message) {
    names = message.names;
    say('ready', `Ready: the model was unpacked in ${time(message.milliseconds)}.`);
  },
  tokens({ tokens }) {
    const part = document.createDocumentFragment();
    for (const event of tokens) part.append(show(event));
    turn.append(part);
    if (document.body.dataset.state === 'writing') $('count').textContent = number(started);
  },
  done(message) {
    if (message.rest) (turn.lastElementChild ?? turn).append(message.rest);
    $('count').textContent = `${number(message.tokens)} (prompt ${number(message.prompt)})`;
    // A job's answer is over before its speed could be measured: it says how long it took.
    $('speed').textContent = mode === 'job' && message.total !== null ? time(message.total)
      : message.rate ? `${number(message.rate)} tokens/s` : '\u2013';
    $('speed').dataset.value = message.rate ?? '';
    $('first').textContent = message.first === null ? '\u2013' : time(message.first);
    if (mode === 'job') answer(message);
    else $('spoken').textContent = turn.textContent;
    const why = message.stopped ? 'Stopped.' : message.ended ? 'Done.' : message.cut
      ? `The model reads no more than ${number(DATA.positions)} tokens.` : 'Done: as many tokens as were asked for.';
    const unread = message.unread ? ` Too long for the model: ${number(message.unread)} characters at the beginning of your message were not read.` : '';
    say('ready', (message.total === null ? why : `${why} ${plural(message.tokens)} in ${time(message.total)}.`) + unread);
  },
  error({ text }) {
    say(names ? 'ready' : 'error', `That did not work: ${text}.`);
    if (names) document.body.dataset.state = 'error';
  },
};

function answer(message) {
  const place = $('answer');
  place.textContent = message.answer || '(an empty answer)';
  place.className = /^[[{]/.test(message.answer) ? 'code' : message.answer.length > 120 ? 'long' : '';
  $('confidence').textContent = message.ended ? `The model's own probability of this answer: ${percent(message.confidence)}`
    : 'This answer was cut off before its end.';
  const first = $('output').querySelector('.token');
  const ranked = DATA.job.names && first ? events.get(first).ids : [];
  $('ranking').hidden = ranked.length < 2;
  $('ranking').replaceChildren(...ranked.map((id, i) =>
    share(DATA.job.names[id] ?? visible(names[id]), Math.exp(events.get(first).logprobs[i]))));
}

function share(name, p, chosen) {
  const item = make('li', chosen ? 'chosen' : '');
  item.style.setProperty('--p', p.toFixed(4));
  item.append(make('span', '', name), make('span', '', percent(p)));
  return item;
}

// ---- the card of a token --------------------------------------------------------------------------------------------

function showCard(span) {
  if (current) current.classList.remove('shown');
  current = span;
  span.classList.add('shown');
  const event = events.get(span), card = $('card');
  const name = event.end ? `${visible(names[event.id])}: the end` : visible(names[event.id]);
  card.replaceChildren(make('p', 'name', name));
  if (event.forced) {
    card.append(make('p', 'soft', 'Nothing else was possible here.'));
  } else {
    card.append(make('p', 'soft', `Probability ${percent(Math.exp(event.logprob))}`));
    const list = make('ol');
    event.ids.forEach((id, i) => list.append(share(visible(names[id]), Math.exp(event.logprobs[i]), id === event.id)));
    card.append(list);
  }
  card.hidden = false;
  const box = span.getClientRects()[0] ?? span.getBoundingClientRect(), size = card.getBoundingClientRect();
  const width = document.documentElement.clientWidth;
  const left = Math.max(12, Math.min(box.left + box.width / 2 - size.width / 2, width - size.width - 12));
  const above = box.bottom + size.height + 12 > document.documentElement.clientHeight && box.top - size.height - 8 > 0;
  card.style.left = `${left + scrollX}px`;
  card.style.top = `${(above ? box.top - size.height - 8 : box.bottom + 8) + scrollY}px`;
}

function hideCard() {
  current?.classList.remove('shown');
  current = null;
  $('card').hidden = true;
}

const tokenOf = event => event.target.closest?.('.token');

function move(event) {
  const span = tokenOf(event);
  if (!span) return;
  if (event.key === 'Escape') return hideCard();
  const all = [...$('output').querySelectorAll('.token')], at = all.indexOf(span);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (to === undefined || !all[to]) return;
  event.preventDefault();
  span.tabIndex = -1;
  all[to].tabIndex = 0;
  all[to].focus();
}

// ---- the engine -----------------------------------------------------------------------------------------------------

/** Starts the engine in a worker, or here where the browser lets a page from a file have none; gives what sends to it. */
function start(receive) {
  const local = () => {
    const host = { postMessage: data => data.is !== 'here' && receive(data) };
    ENGINE(host);
    return data => host.onmessage({ data });
  };
  return new Promise(done => {
    try {
      const url = URL.createObjectURL(new Blob([`(${ENGINE})(self)`], { type: 'text/javascript' }));
      const worker = new Worker(url);
      worker.onerror = event => (event.preventDefault(), done(local()));
      worker.onmessage = ({ data }) => {
        if (data.is !== 'here') return receive(data);
        URL.revokeObjectURL(url);
        worker.onerror = event => receive({ is: 'error', text: event.message });
        done((message, moved = []) => worker.postMessage(message, moved));
      };
    } catch {
      done(local());
    }
  });
}

function taken(id) {
  const element = $(id), bytes = unpacked(element.textContent);
  element.remove(); // the text is as large as the weights
  return bytes.buffer;
}

/** Bytes from base64, in pieces: the whole would be a second text as large as the weights. */
function unpacked(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const step = 1 << 20, bytes = new Uint8Array((text.length / 4) * 3 - (text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0));
  for (let at = 0, to = 0; at < text.length; at += step) {
    const part = atob(text.slice(at, at + step));
    for (let i = 0; i < part.length; i++) bytes[to++] = part.charCodeAt(i);
  }
  return bytes;
}

function prepare() {
  for (const [label, fact, note] of DATA.facts) {
    const row = make('div');
    row.append(make('dt', '', label), make('dd', '', fact));
    if (note) row.lastChild.append(make('small', '', note));
    $('facts').append(row);
  }
  for (const span of document.querySelectorAll('.scale span')) span.style.setProperty('--s', shade(+span.dataset.p));
  $('temperature').value = DATA.job ? 0 : 0.8;
  if (!DATA.job) $('top-p').value = 0.95;
  $('most').value = DATA.most;
  $('most').max = DATA.positions;
  $('note').textContent = DATA.note;
  $('modes').hidden = !DATA.turns;
  const first = DATA.job ? 'job' : DATA.turns ? 'chat' : 'text';
  if (DATA.turns) $('mode-chat').checked = true;
  choose(first);
  const greedy = () => ['top-k', 'top-p', 'min-p', 'seed'].forEach(id => ($(id).disabled = !(value('temperature', 1) > 0)));
  greedy();
  $('temperature').addEventListener('input', greedy);
  $('modes').addEventListener('change', event => choose(event.target.value));
  $('ask').addEventListener('submit', ask);
  $('stop').addEventListener('click', () => engine({ do: 'stop' }));
  $('fresh').addEventListener('click', () => (clear(), $('text').focus()));
  $('text').addEventListener('keydown', event => {
    if (event.key !== 'Enter' || event.isComposing) return;
    if (mode === 'text' ? event.ctrlKey || event.metaKey : !event.shiftKey) ask(event);
  });
  const output = $('output');
  output.addEventListener('pointerover', event => tokenOf(event) && showCard(tokenOf(event)));
  output.addEventListener('pointerleave', () => document.activeElement !== current && hideCard());
  output.addEventListener('focusin', event => tokenOf(event) && showCard(tokenOf(event)));
  output.addEventListener('focusout', hideCard);
  output.addEventListener('keydown', move);
}

prepare();
start(message => RECEIVED[message.is](message)).then(async send => {
  engine = send;
  const wasm = taken('wasm'), flat = taken('weights');
  send({ do: 'open', wasm, flat, data: DATA }, [wasm, flat]);
});
