// Text to ids and back, as the library `tokenizers` does it, for the kinds that tables.py writes.

/** The byte of each stand-in in a byte-level vocabulary, and the stand-in of each byte (GPT-2's table). */
const BYTE_CHARS = (() => {
  const visible = byte => (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(visible(byte) ? byte : next++));
})();
const CHAR_BYTES = new Map(BYTE_CHARS.map((char, byte) => [char, byte]));
const UTF8 = new TextEncoder();
const REMEMBERED = 20000; // words whose tokens are kept

/** Numbers of 1, 2 or 4 bytes from base64. */
function fromBase64(text, width = 1) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return width === 1 ? bytes : width === 2 ? new Uint16Array(bytes.buffer) : new Uint32Array(bytes.buffer);
}

/** A text without halves of characters, which have no UTF-8. */
const wellFormed = text => text.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, '\ufffd');

/** Bytes as text; broken ones become the replacement character. */
const utf8 = () => new TextDecoder('utf-8', { ignoreBOM: true });

class Tokenizer {
  constructor(tables) {
    this.tables = tables;
    this.tokens = tables.tokens;
    this.ids = new Map();
    this.tokens.forEach((token, id) => token !== null && this.ids.set(token, id));
    this.special = new Set(tables.special);
    this.size = this.tokens.length;
    const merges = fromBase64(tables.merges, tables.width);
    this.made = new Int32Array(merges.length / 2); // of each rank
    this.ranks = new Map();
    for (let rank = 0; rank < this.made.length; rank++) {
      const [a, b] = [merges[2 * rank], merges[2 * rank + 1]];
      this.made[rank] = this.ids.get(this.tokens[a] + this.tokens[b]);
      this.ranks.set(a * this.size + b, rank);
    }
    this.cuts = tables.steps.map(([kind, pattern]) => (kind === 'split' ? new RegExp(pattern, 'gu') : null));
    this.bytes = tables.kind === 'bytes'
      ? BYTE_CHARS.map(char => this.ids.get(char))
      : BYTE_CHARS.map((_, byte) => this.ids.get(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`));
    this.byteOf = new Map(tables.kind === 'pieces' ? this.bytes.map((id, byte) => [id, byte]) : []);
    // The longest first, so that of two that begin alike the longer is found.
    const added = tables.added.map(id => this.tokens[id]).sort((a, b) => b.length - a.length);
    const escaped = added.map(token => token.replace(/[\^$\\.*+?()[\]{}|/]/g, '\\$&'));
    this.addedPattern = added.length ? new RegExp(escaped.join('|'), 'gu') : null;
    this.words = new Map();
  }

  /**
   * Ids of a text; `special` finds added tokens that are written in it, else they are text like any other, as they are
   * from `plainFrom` to `plainTo`.
   */
  encode(text, special = false, plainFrom = 0, plainTo = 0) {
    text = wellFormed(text);
    const ids = [];
    let at = 0;
    if (special && this.addedPattern) {
      for (const found of text.matchAll(this.addedPattern)) {
        if (found.index < plainTo && found.index + found[0].length > plainFrom) continue;
        this.encodePart(text.slice(at, found.index), at === 0, ids);
        ids.push(this.ids.get(found[0]));
        at = found.index + found[0].length;
      }
    }
    this.encodePart(text.slice(at), at === 0, ids);
    return ids;
  }

  encodePart(text, first, ids) {
    if (!text) return;
    for (const word of this.cut(text, first)) for (const id of this.wordIds(word)) ids.push(id);
  }

  /** The pieces of a text that no merge crosses. */
  cut(text, first = true) {
    for (const [kind, a, b] of this.tables.normal) {
      if (kind === 'prepend') text = a + text;
      else if (kind === 'replace') text = text.replaceAll(a, () => b);
      else text = text.normalize(a);
    }
    let pieces = [text];
    this.tables.steps.forEach((step, i) => {
      pieces = step[0] === 'split' ? pieces.flatMap(piece => isolated(piece, this.cuts[i]))
        : pieces.flatMap((piece, at) => spaced(piece, step, first && at === 0));
    });
    return pieces.filter(piece => piece);
  }

  wordIds(word) {
    let ids = this.words.get(word);
    if (!ids) {
      ids = this.merge(word);
      if (this.words.size >= REMEMBERED) this.words.clear();
      this.words.set(word, ids);
    }
    return ids;
  }

  /** What a word begins as: its bytes, or its characters, those that are no token in bytes. */
  parts(word) {
    if (this.tables.kind === 'bytes') return Array.from(UTF8.encode(word), byte => this.bytes[byte]);
    const ids = [];
    for (const char of word) {
      const id = this.ids.get(char);
      if (id !== undefined) ids.push(id);
      else for (const byte of UTF8.encode(char)) ids.push(this.bytes[byte]);
    }
    return ids;
  }

  /** Merges the pair of the lowest rank, the leftmost first, until none is left: a heap of places over a linked list. */
  merge(word) {
    if (this.tables.whole) {
      const spelled = this.tables.kind === 'bytes' ? Array.from(UTF8.encode(word), b => BYTE_CHARS[b]).join('') : word;
      const id = this.ids.get(spelled);
      if (id !== undefined) return [id];
    }
    const ids = this.parts(word);
    const n = ids.length;
    const before = Int32Array.from(ids, (_, i) => i - 1);
    const after = Int32Array.from(ids, (_, i) => (i + 1 < n ? i + 1 : -1));
    const heap = new Heap();
    const offer = at => {
      if (at < 0 || after[at] < 0) return;
      const rank = this.ranks.get(ids[at] * this.size + ids[after[at]]);
      if (rank !== undefined) heap.push(rank * 0x1000000 + at);
    };
    for (let i = 0; i < n; i++) offer(i);
    for (let top; (top = heap.pop()) !== undefined; ) {
      const rank = Math.floor(top / 0x1000000), at = top % 0x1000000, next = after[at];
      if (ids[at] < 0 || next < 0) continue;
      const now = this.ranks.get(ids[at] * this.size + ids[next]);
      if (now === undefined || this.made[now] !== this.made[rank]) continue; // a neighbour has changed
      ids[at] = this.made[rank], ids[next] = -1;
      after[at] = after[next];
      if (after[next] >= 0) before[after[next]] = at;
      offer(before[at]);
      offer(at);
    }
    return ids.filter(id => id >= 0);
  }

  /** The text of ids; special tokens are left out. */
  decode(ids) {
    const stream = this.stream();
    return ids.map(id => stream.push(id)).join('') + stream.end();
  }

  /** Text of ids one by one: `push(id)` gives what has become certain, `end()` the rest. */
  stream() {
    return this.tables.kind === 'bytes' ? new ByteStream(this) : new PieceStream(this);
  }

  /** The bytes of a token of a byte-level vocabulary. */
  bytesOf(id) {
    const token = this.tokens[id] ?? '';
    const bytes = Array.from(token, char => CHAR_BYTES.get(char));
    return bytes.includes(undefined) ? UTF8.encode(token) : Uint8Array.from(bytes);
  }

  /** A token for people: its text, or its bytes where these are no whole characters. */
  name(id) {
    const token = this.tokens[id];
    if (token === null || token === undefined) return `token ${id}`;
    if (this.special.has(id)) return token;
    if (this.tables.kind === 'pieces') return this.byteOf.has(id) ? token : token.replaceAll(this.tables.space, ' ');
    const bytes = this.bytesOf(id);
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      return Array.from(bytes, byte => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`).join('');
    }
  }
}

/** A text cut at the matches of a pattern, which are pieces of their own. */
function isolated(text, pattern) {
  const pieces = [];
  let at = 0;
  for (const found of text.matchAll(pattern)) {
    pieces.push(text.slice(at, found.index), found[0]);
    at = found.index + found[0].length;
  }
  pieces.push(text.slice(at));
  return pieces.filter(piece => piece);
}

/** A text with a stand-in for each space, one before it where the scheme says so, cut before each where asked. */
function spaced(text, [, stand, scheme, split], first) {
  text = text.replaceAll(' ', stand);
  if ((scheme === 'always' || (scheme === 'first' && first)) && !text.startsWith(stand)) text = stand + text;
  return split === 'split' ? text.split(new RegExp(`(?=${stand})`, 'u')) : [text];
}

/** Numbers, the least first. */
class Heap {
  constructor() {
    this.all = [];
  }

  push(value) {
    const all = this.all;
    let at = all.length;
    all.push(value);
    for (let up; at > 0 && all[(up = (at - 1) >> 1)] > value; at = up) all[at] = all[up];
    all[at] = value;
  }

  pop() {
    const all = this.all;
    if (all.length < 2) return all.pop();
    const top = all[0], value = all.pop(), n = all.length;
    let at = 0;
    for (let child; (child = 2 * at + 1) < n; at = child) {
      if (child + 1 < n && all[child + 1] < all[child]) child++;
      if (all[child] >= value) break;
      all[at] = all[child];
    }
    all[at] = value;
    return top;
  }
}

class ByteStream {
  constructor(tokenizer) {
    this.tokenizer = tokenizer;
    this.decoder = utf8();
  }

  push(id) {
    if (this.tokenizer.special.has(id)) return '';
    return this.decoder.decode(this.tokenizer.bytesOf(id), { stream: true });
  }

  end() {
    return this.decoder.decode();
  }
}

/** Tokens of bytes count together: whole characters or, byte for byte, replacement characters. */
class PieceStream {
  constructor(tokenizer) {
    this.tokenizer = tokenizer;
    this.run = [];
    this.strip = tokenizer.tables.strip; // spaces that may still be left out
  }

  push(id) {
    const { byteOf, special, tokens, tables } = this.tokenizer;
    if (special.has(id)) return '';
    if (byteOf.has(id)) {
      this.run.push(byteOf.get(id));
      return '';
    }
    return this.end() + this.stripped((tokens[id] ?? '').replaceAll(tables.space, ' '));
  }

  end() {
    if (!this.run.length) return '';
    let text;
    try {
      text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(this.run));
    } catch {
      text = '\ufffd'.repeat(this.run.length);
    }
    this.run = [];
    return this.stripped(text);
  }

  stripped(text) {
    while (this.strip > 0 && text) {
      if (text[0] !== ' ') this.strip = 0;
      else text = text.slice(1), this.strip--;
    }
    return text;
  }
}
