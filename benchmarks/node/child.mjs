// The JavaScript side of the protocol between the benchmark and a contestant; see contestants/__init__.py.
import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import { createInterface } from "node:readline"

// A server in memory behind a WebSocket that is none: it opens, and lets every join in.
export class Transport {
  constructor() {
    this.readyState = 0
    Transport.last = this
    queueMicrotask(() => {
      this.readyState = 1
      this.onopen?.({})
    })
  }

  send(data) {
    const message = JSON.parse(data)
    const [join_ref, ref, topic, event] = Array.isArray(message)
      ? message
      : [message.join_ref, message.ref, message.topic, message.event]
    if (event !== "phx_join" && event !== "heartbeat") return
    const payload = { status: "ok", response: {} }
    const reply = Array.isArray(message)
      ? [join_ref, ref, topic, "phx_reply", payload]
      : { topic, event: "phx_reply", ref, payload }
    queueMicrotask(() => this.onmessage?.({ data: JSON.stringify(reply) }))
  }

  close() {
    this.readyState = 3
  }
}

export const keyed = (topics, topic, key) => (topics.length === 1 ? key : `${topic}/${key}`)

export function digest(roster) {
  const lines = [...roster].map(([key, refs]) => `${key} ${[...refs].sort().join(" ")}\n`).sort()
  return createHash("sha256").update(lines.join("")).digest("hex")
}

// contestant: {load(topics, port): Promise, run(texts) -> events or Promise, roster() -> [[key, refs], ...]}
// Over a socket (`port`) the texts come from the server.
export async function serve(contestant) {
  let texts = []
  for await (const line of createInterface({ input: process.stdin })) {
    const request = JSON.parse(line)
    let answer = { ready: true }
    if (request.load) {
      await contestant.load(request.topics, request.port)
      if (!request.port) {
        const all = readFileSync(request.load, "utf8").split("\n").slice(0, -1)
        contestant.run(all.slice(0, request.untimed))
        texts = all.slice(request.untimed)
      }
    } else {
      globalThis.gc?.()
      const start = process.cpuUsage()
      const events = await contestant.run(texts)
      const { user, system } = process.cpuUsage(start)
      answer = { cpu: (user + system) / 1e6, events, digest: digest(contestant.roster()) }
    }
    process.stdout.write(JSON.stringify(answer) + "\n")
  }
  process.exit() // whatever is still open
}
