// Starts our workers. Trusted Types want a policy for a worker's address: only
// files of our own pass.

const policy = globalThis.trustedTypes?.createPolicy('patronus', {
  createScriptURL(url) {
    if (new URL(url, location.href).origin !== location.origin) throw new TypeError('not a script of ours');
    return url;
  },
});

/** A module worker from one of our files. */
export function startWorker(url) {
  return new Worker(policy ? policy.createScriptURL(url) : url, { type: 'module' });
}
