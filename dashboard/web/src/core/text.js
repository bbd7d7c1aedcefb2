// The words of the interface. A message is its own key: English stands in the
// code, other languages in messages/<language>.js, and messages/en.json lists
// every message for translators (made by tools/catalogue.mjs, checked by a test).

let catalogue = {};

/** Loads the catalogue of a language, if there is one. */
export async function useLanguage(language) {
  const known = [];
  if (known.includes(language)) catalogue = (await import(`../messages/${language}.js`)).default;
}

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
