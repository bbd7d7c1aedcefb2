// Reads what a person types to find flows: addresses, ports and protocols by
// themselves, or named as src: dst: port: proto:.

const protocols = new Set(['tcp', 'udp', 'icmp', 'icmpv6', 'sctp', 'gre', 'esp']);
const address = /^(\d{1,3}(\.\d{1,3}){3}|[0-9a-f]*:[0-9a-f:.]+)(\/\d{1,3})?$/i;

/** Parameters of the API: src, dst, port, protocol, q. */
export function parseSearch(text) {
  const out = {};
  const rest = [];
  for (const word of text.trim().split(/\s+/).filter(Boolean)) {
    const named = word.match(/^(src|dst|port|proto|protocol|site|verdict|status):(.+)$/i);
    if (named) {
      const key = { proto: 'protocol', verdict: 'status' }[named[1].toLowerCase()] ?? named[1].toLowerCase();
      out[key] = named[2].toLowerCase();
    } else if (protocols.has(word.toLowerCase())) out.protocol = word.toLowerCase();
    else if (/^\d{1,5}$/.test(word) && Number(word) > 0 && Number(word) < 65536) out.port = word;
    else if (address.test(word) && word.includes('/')) out[out.src ? 'dst' : 'src'] = word;
    else rest.push(word);
  }
  if (rest.length) out.q = rest.join(' ');
  return out;
}
