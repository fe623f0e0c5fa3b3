// Commands come as JSON lines on stdin; answers and events go as JSON lines to stdout.
//
//   {"id": 7, "peer": "ann", "verb": "join", "args": {...}}   →   {"id": 7, "ok": ...} or {"id": 7, "error": "..."}
//   {"peer": "ann", "event": "status", ...}
//
// `open(args, tell)` makes the client of a peer: an object with a method for each verb. The end of stdin is the end.

import { createInterface } from 'node:readline'

const say = (line) => process.stdout.write(JSON.stringify(line) + '\n')

export function serve(open) {
  const peers = new Map()
  const lines = createInterface({ input: process.stdin })
  lines.on('line', async (line) => {
    const { id, peer, verb, args } = JSON.parse(line)
    try {
      if (verb === 'open') {
        peers.set(peer, open(args, (event) => say({ peer, ...event })))
        say({ id, ok: null })
      } else {
        say({ id, ok: (await peers.get(peer)[verb](args)) ?? null })
      }
    } catch (error) {
      say({ id, error: String(error) })
    }
  })
  // The clients leave timers behind that would keep the process alive.
  lines.on('close', () => process.exit(0))
}

// A payload as JSON: what is binary is wrapped.
export const packed = (payload) =>
  payload instanceof ArrayBuffer ? { base64: Buffer.from(payload).toString('base64') } : { json: payload }

export const unpacked = (packed) =>
  'base64' in packed ? Uint8Array.from(Buffer.from(packed.base64, 'base64')).buffer : packed.json
