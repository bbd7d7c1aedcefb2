// The words of the interface. A message is its own key: English stands in the
// code, and messages/en.json lists
// every message for translators (made by
// tools/catalogue.mjs, checked by a test).

let catalogue = {};

/** Makes another language's messages those that are shown: {English: other}. */
export function useCatalogue(messages) { catalogue = messages; }

/** A message with {names} filled in. */
export function t(message, values) {
  const text = catalogue[message] ?? message;
  return values ? text.replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all) : text;
}

/** A message in singular or plural; {n} is the number. */
export function tn(n, one, many, values) {
  return t(n === 1 ? one : many, { n: number(n), ...values });
}

const plain = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
/** A whole number with separators. */
export function number(n) { return plain.format(n); }
