// The calculator that finishes <<12/60= with 0.2>>, as smallfry.calculator does.

const SUM_CALL = /<<([^<>=]{1,60})=$/;
const SUM_LARGEST = 1e15;

/** Ten significant digits, halves to even, as C's %.10g writes them. */
function tenDigits(value) {
  if (value === 0) return Object.is(value, -0) ? '-0' : '0';
  const sign = value < 0 ? '-' : '', [whole, fraction] = Math.abs(value).toFixed(100).split('.'); // exact
  const all = whole + fraction, first = all.search(/[1-9]/);
  if (first < 0) return `${sign}0`;
  let exponent = whole.length - 1 - first, kept = BigInt(all.slice(first, first + 10).padEnd(10, '0'));
  const rest = all.slice(first + 10);
  if (/^[6-9]|^5.*[1-9]/.test(rest) || (/^50*$/.test(rest) && kept % 2n === 1n)) kept += 1n;
  let digits = kept.toString();
  if (digits.length > 10) digits = digits.slice(0, 10), exponent++;
  const bare = (before, after) => before + (after.replace(/0+$/, '') && `.${after.replace(/0+$/, '')}`);
  if (exponent < -4 || exponent >= 10) {
    const power = String(Math.abs(exponent)).padStart(2, '0');
    return `${sign}${bare(digits[0], digits.slice(1))}e${exponent < 0 ? '-' : '+'}${power}`;
  }
  if (exponent < 0) return sign + bare('0', '0'.repeat(-exponent - 1) + digits);
  return sign + bare(digits.slice(0, exponent + 1), digits.slice(exponent + 1));
}

/** The value of an arithmetic expression as a text, or null where it is none. */
function calculate(expression) {
  const plain = expression.replace(/[,$]/g, '').trim();
  if (!/^[-+*/(). 0-9]+$/.test(plain)) return null;
  const parts = plain.match(/\d+\.?\d*|\.\d+|[-+*/()]/g) ?? [];
  if (parts.join('') !== plain.replaceAll(' ', '') || /[\d.] +[\d.]|[*/] *[*] *[*]/.test(plain)) return null;
  let at = 0;
  const fail = () => {
    throw new RangeError('not arithmetic');
  };
  const sum = () => {
    let value = product();
    while (parts[at] === '+' || parts[at] === '-') value = parts[at++] === '+' ? value + product() : value - product();
    return value;
  };
  const product = () => {
    let value = signed();
    while (parts[at] === '*' || parts[at] === '/') {
      if (parts[at++] === '*') value *= signed();
      else {
        const by = signed();
        value = by === 0 ? fail() : value / by;
      }
    }
    return value;
  };
  const signed = () => {
    if (parts[at] === '-') return at++, -signed();
    if (parts[at] === '+') return at++, signed();
    if (parts[at] === '(') {
      at++;
      const value = sum();
      return parts[at++] === ')' ? value : fail();
    }
    const number = parts[at++];
    // Python takes no number that begins with nought, but nought itself.
    return number === undefined || !/\d/.test(number) || /^0\d*[1-9]\d*$/.test(number) ? fail() : Number(number);
  };
  try {
    const value = sum();
    return at === parts.length && Math.abs(value) < SUM_LARGEST ? tenDigits(value) : null;
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
}

/** What the calculator writes after a text: the value and >> where it ends in <<expression=, else null. */
function calculated(text) {
  const call = text.slice(-64).match(SUM_CALL), value = call ? calculate(call[1]) : null;
  return value === null ? null : `${value}>>`;
}
