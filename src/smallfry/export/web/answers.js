// Jobs: what a model reads of an input, what it may write, and the output that its answer stands for (forms, frames).

// Python's white space, letters and digits, which are not JavaScript's.
const PY_SPACE = '\\t-\\r\\x1c- \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000';
const PY_STRIP = new RegExp(`^[${PY_SPACE}]+|[${PY_SPACE}]+$`, 'gu');
const UNIT = new RegExp(`[\\p{L}\\p{Nl}\\p{No}]+|\\p{Nd}+|[^\\p{L}\\p{N}_${PY_SPACE}]|_`, 'gu');
const WORD = new RegExp(`[^${PY_SPACE}]+`, 'gu');

class Answers {
  constructor(job, tokenizer) {
    this.job = job; // job.reads: tokens of an input; what lies between the first and the last half of it is not read
    this.tokenizer = tokenizer;
    this.trie = job.labels ? trieOf(job.labels.map(ids => [...ids, job.end])) : null;
    this.frames = job.frames ? new Frames(job.frames) : null;
  }

  fold(text) {
    return this.job.lowercase ? text.toLowerCase() : text;
  }

  words(text) {
    return this.tokenizer.cut(' ' + this.fold(text));
  }

  promptIds(text) {
    text = wellFormed(text);
    const fits = this.frames || Array.from(text).length <= this.job.reads / 4; // no character is more than four tokens
    const words = fits ? this.words(text) : this.fitting(text);
    return [this.job.user, ...words.flatMap(word => this.tokenizer.wordIds(word)), this.job.assistant];
  }

  /** Words of a text; where they are too many tokens, as many from both ends as fit. */
  fitting(text) {
    const far = 8 * this.job.reads, chars = Array.from(text);
    if (chars.length > 2 * far) text = chars.slice(0, far).join('') + chars.slice(-far).join('');
    const words = this.words(text);
    const sizes = words.map(word => this.tokenizer.wordIds(word).length);
    if (sizes.reduce((a, b) => a + b, 0) <= this.job.reads) return words;
    const within = all => {
      let sum = 0, n = 0;
      while (n < all.length && (sum += all[n]) <= this.job.reads / 2) n++;
      return n;
    };
    const front = within(sizes), back = within(sizes.slice().reverse());
    const part = this.job.reads / 8, whole = Array.from(text); // of a "word" as long as this nothing would be read
    const first = front ? words.slice(0, front) : this.words(whole.slice(0, part).join(''));
    const last = back ? words.slice(words.length - back) : this.tokenizer.cut(this.fold(whole.slice(-part).join('')));
    return [...first, ...last];
  }

  /** What may be written in answer to a text; null where anything may. */
  constraint(text) {
    if (this.frames) return new Inline(this.job, this.schedule(wellFormed(text)));
    return this.trie ? new Labels(this.trie, this.job.end) : null;
  }

  /** Ids of the input's words in the order of an inline answer, -1 where a tag is chosen. */
  schedule(text) {
    return this.frames.units(text).flatMap(unit => [
      ...this.words(unit.text).flatMap(word => this.tokenizer.wordIds(word)), -1,
    ]);
  }

  /** The output that an answer's ids stand for. */
  read(text, ids) {
    if (!this.frames) return this.tokenizer.decode(ids.filter(id => id !== this.job.end)).replace(PY_STRIP, '');
    const { symbols, tags } = this.job;
    const head = ids.filter(id => id in symbols).map(id => symbols[id]);
    return this.frames.render(wellFormed(text), head, ids.filter(id => id in tags).map(id => tags[id]));
  }
}

// ---- what may come next --------------------------------------------------------------------------------------------

function trieOf(sequences) {
  const root = new Map();
  for (const sequence of sequences) {
    let node = root;
    for (const id of sequence) {
      if (!node.has(id)) node.set(id, new Map());
      node = node.get(id);
    }
  }
  return root;
}

/** Only the sequences of a trie, each followed by the end. */
class Labels {
  constructor(root, end) {
    this.node = root;
    this.end = end;
  }

  allowed() {
    return this.node && this.node.size ? [...this.node.keys()] : [this.end];
  }

  advance(id) {
    this.node = this.node?.get(id);
  }
}

/** Head symbols, then the input's own words with a tag after each. */
class Inline {
  constructor(job, schedule) {
    this.job = job;
    this.schedule = schedule;
    this.first = -1;
    this.previous = '';
    this.tag = -1;
    this.at = -1; // place in the schedule; -1 while the head is written
  }

  allowed() {
    const { follows, next, text, end } = this.job;
    if (this.at < 0) return follows[JSON.stringify([this.first, this.previous])] ?? [text];
    if (this.at >= this.schedule.length) return [end];
    if (this.schedule[this.at] >= 0) return [this.schedule[this.at]];
    const table = next[this.first] ?? next[-2];
    return table[this.tag] ?? table[-1];
  }

  advance(id) {
    if (this.at >= 0) {
      if (this.at < this.schedule.length && this.schedule[this.at++] < 0) this.tag = id;
    } else if (id === this.job.text) {
      this.at = 0;
    } else {
      if (!this.previous) this.first = id;
      this.previous = this.job.paths[id] ?? '';
    }
  }
}

// ---- frames: head symbols and tags to the job's own format -----------------------------------------------------------

class Frames {
  constructor(codec) {
    this.codec = codec;
    this.ranks = new Map(Object.entries(codec.orders).map(([first, order]) => [first, new Map(order.map((p, i) => [p, i]))]));
    this.numeric = new Set(codec.numeric);
  }

  /** The pieces of a text that carry one tag each. */
  units(text) {
    const found = text.matchAll(this.codec.style === 'tags' ? WORD : UNIT);
    return Array.from(found, match => ({ text: match[0], start: match.index, end: match.index + match[0].length }));
  }

  render(text, head, tags) {
    const { style, layout, text_order: textOrder } = this.codec;
    const units = this.units(text);
    while (tags.length < units.length) tags.push(style === 'tags' ? this.codec.tags[0] : 'O');
    if (style === 'tags') return tags.join(' ');
    const leaves = head.map(symbol => splitAt(symbol, '='));
    for (const [path, first, last] of tagRuns(tags)) {
      const span = text.slice(units[first].start, units[last - 1].end);
      leaves.push([path, style === 'json' ? this.jsonOf(path, span) : span]);
    }
    if (!textOrder) {
      const rank = this.ranks.get(head[0] ?? '') ?? this.ranks.get('');
      const place = ([path]) => rank.get(path) ?? rank.size;
      leaves.sort((a, b) => place(a) - place(b));
    }
    return style === 'json' ? jsonText(leaves, layout) : listText(leaves, layout);
  }

  jsonOf(path, span) {
    if (this.numeric.has(path)) {
      try {
        pyJson(span);
        return span;
      } catch {
        // a string after all
      }
    }
    return JSON.stringify(span);
  }
}

function splitAt(text, mark) {
  const at = text.indexOf(mark);
  return [text.slice(0, at), text.slice(at + mark.length)];
}

/** Spans that BIO tags mark: path, first unit, last unit + 1. */
function tagRuns(tags) {
  const runs = [];
  tags.forEach((tag, i) => {
    const last = runs[runs.length - 1];
    if (tag.startsWith('B-')) runs.push([tag.slice(2), i, i + 1]);
    else if (last && last[2] === i && tag === 'I-' + last[0]) last[2] = i + 1;
  });
  return runs;
}

/** `head | key = value ; key = value`: pairs go together into one field, after the fields that precede them. */
function listText(leaves, { field, pair, assign }) {
  let pairs = leaves.filter(([key]) => !key.startsWith('#')).map(([key, value]) => key + assign + value).join(pair);
  const fields = new Map(leaves.filter(([key]) => key.startsWith('#')).map(([key, value]) => [Number(key.slice(1)), value]));
  const parts = [];
  for (let i = 0; i <= fields.size; i++) {
    if (fields.has(i)) parts.push(fields.get(i));
    else if (pairs) parts.push(pairs), (pairs = '');
  }
  if (pairs) parts.push(pairs);
  const rest = [...fields.keys()].filter(i => i > fields.size).sort((a, b) => a - b);
  return [...parts, ...rest.map(i => fields.get(i))].join(field);
}

/** An object of leaves under dotted paths, as Python dumps it. */
function jsonText(leaves, layout) {
  const root = new Map();
  for (const [path, text] of leaves) {
    const repeated = path.endsWith('[]');
    const parents = (repeated ? path.slice(0, -2) : path).split('.');
    const key = parents.pop();
    let node = root;
    for (const parent of parents) {
      if (!(node.get(parent) instanceof Map)) node.set(parent, new Map());
      node = node.get(parent);
    }
    if (!repeated) {
      node.set(key, pyJson(text));
      continue;
    }
    if (!node.has(key)) node.set(key, []);
    if (Array.isArray(node.get(key))) node.get(key).push(pyJson(text));
  }
  return pyDump(root, layout.separators, layout.ensure_ascii);
}

class Scalar {
  constructor(text) {
    this.text = text;
  }
}

const SCALARS = {
  true: 'true', false: 'false', null: 'null', NaN: 'NaN', Infinity: 'Infinity', '-Infinity': '-Infinity',
};

/** JSON as Python reads it: objects as maps, strings, and scalars as the text that Python would write. */
function pyJson(text) {
  const blank = '[ \\t\\n\\r]*', string = '"(?:[^"\\\\\\x00-\\x1f]|\\\\.)*"';
  const digits = '-?(?:0|[1-9]\\d*)(?:\\.\\d+)?(?:[eE][+-]?\\d+)?(?![\\d.])', word = 'true|false|null|NaN|-?Infinity';
  const token = new RegExp(`${blank}(?:([{}[\\],:])|(${string})|(${digits})|(${word}))${blank}`, 'y');
  const next = () => {
    const found = token.exec(text);
    if (!found) throw new SyntaxError('not JSON');
    return found;
  };
  const value = ([, mark, text, number, name], depth) => {
    if (depth > 100) throw new SyntaxError('too deep');
    if (text !== undefined) return JSON.parse(text);
    if (number !== undefined) return new Scalar(/[.eE]/.test(number) ? pyFloat(Number(number)) : String(BigInt(number)));
    if (name !== undefined) return new Scalar(SCALARS[name]);
    if (mark !== '[' && mark !== '{') throw new SyntaxError('not JSON');
    const items = mark === '[' ? [] : new Map(), close = mark === '[' ? ']' : '}';
    for (let found = next(); found[1] !== close; ) {
      let key;
      if (mark === '{') {
        if (found[2] === undefined || next()[1] !== ':') throw new SyntaxError('not JSON');
        key = JSON.parse(found[2]), (found = next());
      }
      const item = value(found, depth + 1);
      if (mark === '{') items.set(key, item);
      else items.push(item);
      found = next();
      if (found[1] === ',') {
        if ((found = next())[1] === close) throw new SyntaxError('not JSON');
      } else if (found[1] !== close) throw new SyntaxError('not JSON');
    }
    return items;
  };
  const found = value(next(), 0);
  if (token.lastIndex !== text.length) throw new SyntaxError('not JSON');
  return found;
}

/** A number as Python's repr. */
function pyFloat(x) {
  if (!Number.isFinite(x)) return x > 0 ? 'Infinity' : '-Infinity';
  if (Object.is(x, -0)) return '-0.0';
  const size = Math.abs(x);
  if (size !== 0 && (size < 1e-4 || size >= 1e16)) {
    const [digits, power] = x.toExponential().split('e');
    return `${digits}e${power[0]}${power.slice(1).padStart(2, '0')}`;
  }
  const plain = String(x);
  return plain.includes('.') ? plain : plain + '.0';
}

function pyDump(value, [comma, colon], ascii) {
  const string = text => {
    const dumped = JSON.stringify(text);
    return ascii ? dumped.replace(/[^ -~]/g, c => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0')) : dumped;
  };
  const dump = node => {
    if (node instanceof Scalar) return node.text;
    if (typeof node === 'string') return string(node);
    if (Array.isArray(node)) return `[${node.map(dump).join(comma)}]`;
    return `{${Array.from(node, ([key, child]) => string(key) + colon + dump(child)).join(comma)}}`;
  };
  return dump(value);
}
