// libfry and the loop around it. Runs in a worker, or where there can be none in the page itself, between its frames.

const SLICE = 12; // milliseconds of writing before others have their turn
const CHUNK = 96; // tokens of a prompt read at once
const ALTERNATIVES = 5;
const ROOM = 512; // tokens of the smallest state
const ERRORS = {
  1: 'this model has a shape that libfry does not compute', 2: 'a wrong argument', 3: 'no memory left',
  4: 'the weights in this page are damaged', 5: 'the text is too long',
};

function check(code) {
  if (code) throw new Error(ERRORS[code] ?? `error ${code}`);
}

/** A model in WebAssembly, with one sequence. */
class Model {
  constructor(fry, flat, vocab) {
    this.fry = fry;
    this.vocab = vocab;
    const bytes = this.room(flat.byteLength);
    new Uint8Array(fry.memory.buffer).set(flat, bytes);
    const handle = this.room(8);
    check(fry.fry_open(bytes, flat.byteLength, 0, handle));
    fry.free(bytes);
    this.model = this.word(handle);
    this.handle = handle;
    this.state = 0;
    this.length = 0;
    this.read = []; // what the state holds
    this.logits = this.room(4 * vocab);
    this.order = this.room(4 * vocab);
    this.mask = this.room(Math.ceil(vocab / 8));
    this.ids = this.room(4 * CHUNK);
    this.one = this.room(8); // row 0, and how many tokens it is given
    this.likely = this.room(8 * ALTERNATIVES);
    this.sampling = this.room(20);
    this.random = this.room(8);
  }

  room(bytes) {
    const at = this.fry.malloc(bytes);
    if (!at) check(3);
    return at;
  }

  word(at) {
    return new DataView(this.fry.memory.buffer).getInt32(at, true);
  }

  /** Room for a sequence of so many tokens, of which the first `kept` are what was read before. */
  begin(ids, length) {
    let kept = 0;
    while (kept < ids.length - 1 && kept < this.read.length && this.read[kept] === ids[kept]) kept++;
    if (length > this.length) {
      this.fry.fry_state_free(this.state);
      this.state = 0, this.length = 0, this.read = [], kept = 0;
      let room = ROOM;
      while (room < length) room *= 2;
      check(this.fry.fry_state_new(this.model, 1, room, this.handle));
      this.state = this.word(this.handle), this.length = room;
    }
    check(this.fry.fry_rewind(this.state, 0, kept));
    this.read.length = kept;
    return ids.slice(kept);
  }

  /** Reads up to CHUNK tokens; their last one's logits are there afterwards where asked for. */
  feed(ids, asked) {
    const memory = new Int32Array(this.fry.memory.buffer);
    memory.set(ids, this.ids >> 2);
    memory[this.one >> 2] = 0, memory[(this.one >> 2) + 1] = ids.length;
    check(this.fry.fry_read(this.state, 1, this.one, this.one + 4, this.ids, asked ? this.logits : 0));
    for (const id of ids) this.read.push(id);
  }

  /** How the next tokens are drawn; null takes the likeliest. */
  draw(sampling) {
    this.draws = !!sampling && sampling.temperature > 0;
    if (!this.draws) return;
    const view = new DataView(this.fry.memory.buffer);
    view.setFloat32(this.sampling, 1, true);
    view.setFloat32(this.sampling + 4, sampling.temperature, true);
    view.setInt32(this.sampling + 8, sampling.topK, true);
    view.setFloat32(this.sampling + 12, sampling.topP, true);
    view.setFloat32(this.sampling + 16, sampling.minP, true);
    view.setUint32(this.random, sampling.seed >>> 0, true);
    view.setUint32(this.random + 4, Math.floor(sampling.seed / 2 ** 32) >>> 0, true);
  }

  /** The next token among those allowed (null: any), its log-probability among these, and the likeliest of them. */
  choose(allowed) {
    const { fry, vocab } = this;
    let mask = 0;
    if (allowed) {
      const bits = new Uint8Array(fry.memory.buffer, this.mask, Math.ceil(vocab / 8)).fill(0);
      for (const id of allowed) bits[id >> 3] |= 1 << (id & 7);
      mask = this.mask;
    }
    const n = fry.fry_likeliest(this.model, this.logits, mask, ALTERNATIVES, this.likely, this.likely + 4 * ALTERNATIVES);
    const ids = Array.from(new Int32Array(fry.memory.buffer, this.likely, n));
    const logprobs = Array.from(new Float32Array(fry.memory.buffer, this.likely + 4 * ALTERNATIVES, n));
    let id = ids[0], logprob = logprobs[0];
    if (this.draws) {
      const own = new Float32Array(fry.memory.buffer, this.logits, vocab).slice(); // before they are changed
      id = fry.fry_sample(this.logits, vocab, this.sampling, mask, 0, 0, this.order, this.random, 0);
      logprob = logprobs[0] + own[id] - own[ids[0]];
    }
    return { id, logprob, ids, logprobs };
  }
}

/** Writes an answer, yielding after each step what it added: token events, or nothing while the prompt is read. */
function* write(model, prompt, { constraint, maxNew, ends, text, tool }) {
  let pending = prompt, said = '';
  for (let step = 0; step < maxNew; step++) {
    while (pending.length > CHUNK) {
      model.feed(pending.slice(0, CHUNK), false);
      pending = pending.slice(CHUNK);
      yield [];
    }
    model.feed(pending, true);
    pending = [];
    const choice = model.choose(constraint ? constraint.allowed() : null);
    const events = [];
    for (let forced = false, id = choice.id; ; forced = true) {
      const end = ends.includes(id);
      const event = { id, end, text: end ? text.end() : text.push(id) };
      const { logprob, ids, logprobs } = choice;
      events.push(forced ? { ...event, forced } : { ...event, logprob, ids, logprobs });
      if (end) return void (yield events);
      pending.push(id);
      if (!constraint) {
        said += event.text;
        for (const given of tool?.(said) ?? []) {
          const more = text.push(given);
          pending.push(given), events.push({ id: given, end: false, text: more, forced: true });
          said += more;
        }
        break;
      }
      constraint.advance(id);
      const allowed = constraint.allowed();
      if (allowed.length !== 1) break;
      id = allowed[0];
    }
    yield events;
  }
}

/** Answers what a page asks: open, write, stop. `host` has postMessage, and onmessage is set on it. */
class Session {
  constructor(host) {
    this.host = host;
    this.stopped = false;
    this.told = []; // the conversation so far: what was said, and the ids of what was answered
    host.onmessage = ({ data }) => {
      if (data.do === 'stop') this.stopped = true;
      else this[data.do](data).catch(error => host.postMessage({ is: 'error', text: String(error.message ?? error) }));
    };
  }

  async open({ wasm, flat, data }) {
    const start = performance.now();
    const { instance } = await WebAssembly.instantiate(wasm, {}).catch(error => {
      throw new Error(`this browser does not run WebAssembly with 128-bit registers (${error.message})`);
    });
    this.data = data;
    this.tokenizer = new Tokenizer(data.tokenizer);
    this.model = new Model(instance.exports, new Uint8Array(flat), data.vocab);
    this.answers = data.job ? new Answers(data.job, this.tokenizer) : null;
    const names = Array.from({ length: data.vocab }, (_, id) => this.tokenizer.name(id));
    this.host.postMessage({ is: 'ready', names, milliseconds: performance.now() - start });
  }

  /** The ids before an answer, how many characters of the text they leave out, and of a conversation what is read. */
  prompt({ mode, text, fresh, maxNew }) {
    const { begins, positions, turns } = this.data;
    if (mode === 'job') return { ids: this.answers.promptIds(text), cut: 0 };
    if (mode === 'text') return { ids: [...begins, ...this.tokenizer.encode(text, true)], cut: 0 };
    if (turns.trims) text = text.trim();
    const limit = positions - Math.min(maxNew, positions >> 1), last = { text, written: [] };
    let told = fresh || turns.between === null ? [last] : [...this.told, last];
    // As `smallfry chat` does: whole exchanges go, the oldest first, and only then the beginning of what was said last.
    let ids = this.spelled(told);
    while (ids.length > limit && told.length > 1) told = told.slice(1), (ids = this.spelled(told));
    if (ids.length > limit) {
      last.text = ending(text, part => this.spelled([{ text: part, written: [] }]).length <= limit);
      ids = this.spelled(told);
    }
    return { ids, cut: Array.from(text).length - Array.from(last.text).length, told };
  }

  /** A conversation as ids; its last exchange is still to be answered. */
  spelled(told) {
    const { turns } = this.data;
    return told.reduce((ids, { text, written }, i) => {
      const head = i ? turns.between : turns.before;
      const plain = turns.plain ? [head.length, head.length + text.length] : [0, 0];
      return ids.concat(this.tokenizer.encode(head + text + turns.after, true, ...plain), written);
    }, turns.begins);
  }

  async write(asked) {
    const start = performance.now();
    this.stopped = false;
    const { ids, cut, told: turns } = this.prompt(asked);
    if (!ids.length) throw new Error('an empty text, and no token that begins texts: write a word first');
    const constraint = asked.mode === 'job' ? this.answers.constraint(asked.text) : null;
    const most = this.data.positions - ids.length - (constraint?.schedule?.length ?? 0);
    if (most < 1) throw new Error(`${ids.length} tokens before the answer; this model reads up to ${this.data.positions}`);
    const maxNew = Math.min(asked.maxNew, most);
    const stream = this.tokenizer.stream();
    if (asked.mode === 'text') ids.forEach(id => stream.push(id));
    const pending = this.model.begin(ids, ids.length + maxNew + (constraint?.schedule?.length ?? 0) + 1);
    this.model.draw(asked.sampling);
    // Of our own models' conversations: what smallfry chat has.
    const tool = asked.mode !== 'chat' || !this.data.turns.plain ? null : said => {
      const value = calculated(said);
      return value === null ? null : this.tokenizer.encode(value);
    };
    const ends = asked.mode === 'job' ? [this.data.job.end] : this.data.ends;
    const options = { constraint, maxNew, ends, text: stream, tool };
    const told = { written: [], logprob: 0, first: 0, last: 0, choices: 0, cut: maxNew < asked.maxNew };
    await this.tell(write(this.model, pending, options), told, start);
    if (asked.mode === 'chat') turns.at(-1).written = told.written, this.told = turns;
    this.host.postMessage({
      is: 'done', rest: told.ended ? '' : stream.end(), ended: !!told.ended, stopped: this.stopped, cut: told.cut,
      unread: cut, prompt: ids.length, tokens: told.written.length, first: told.choices ? told.first - start : null,
      total: told.choices ? told.last - start : null,
      rate: told.choices > 1 ? ((told.counted - told.firstCount) / (told.last - told.first)) * 1000 : null,
      answer: asked.mode === 'job' ? this.answers.read(asked.text, told.written) : null,
      confidence: told.ended ? Math.min(1, Math.exp(told.logprob)) : 0, // what is cut off is no whole answer
    });
  }

  /** Steps until the end or a stop, told to the page in batches; after each slice others have their turn. */
  async tell(steps, told, start) {
    let batch = [], until = start + SLICE;
    const flush = () => {
      if (batch.length) this.host.postMessage({ is: 'tokens', tokens: batch });
      batch = [];
    };
    for (const events of steps) {
      const now = performance.now();
      if (events.length) {
        if (!told.choices++) told.first = now;
        told.last = now;
      }
      for (const event of events) {
        told.counted = (told.counted ?? 0) + 1;
        told.logprob += event.logprob ?? 0;
        if (event.end) told.ended = true;
        else told.written.push(event.id);
        batch.push(event);
      }
      if (told.choices === 1) told.firstCount = told.counted;
      if (now < until) continue;
      flush();
      await turn();
      if (this.stopped) break;
      until = performance.now() + SLICE;
    }
    flush();
  }
}

/** The longest end of a text that fits; it begins with a word where one begins in its first half. */
function ending(text, fits) {
  const chars = Array.from(text);
  let good = 0, bad = chars.length + 1;
  while (bad - good > 1) {
    const middle = (good + bad) >> 1;
    if (fits(chars.slice(chars.length - middle).join(''))) good = middle;
    else bad = middle;
  }
  const left = chars.slice(chars.length - good), space = left.findIndex(c => /\s/.test(c));
  return (space >= 0 && space < good / 2 ? left.slice(space) : left).join('').trimStart();
}

/** Lets messages, and where this is the page its frames, be handled. */
function turn() {
  if (typeof document !== 'undefined') return new Promise(done => setTimeout(done));
  return new Promise(done => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => (port1.close(), done());
    port2.postMessage(0);
  });
}
