// Runs the presence messages of recordings through the Presence class of phoenix.js, one channel per topic.
//
// stdin: [[step, ...], ...], one list per recording. A step is {line, topic, join} for a phx_join of the client with
// the ref `join`, or {line, topic, event, payload} for a presence message of the server. stdout: for each recording,
// {line, topic, pending, state} after each presence message.
import { readFileSync } from "node:fs"
import { Presence } from "phoenix"

class Channel {
  constructor() {
    this.bindings = {}
    this.ref = null
    this.presence = new Presence(this)
  }
  on(event, callback) {
    this.bindings[event] = callback
  }
  joinRef() {
    return this.ref
  }
}

function replay(steps) {
  const channels = new Map()
  const entries = []
  for (const { line, topic, join, event, payload } of steps) {
    if (!channels.has(topic)) channels.set(topic, new Channel())
    const channel = channels.get(topic)
    if (event === undefined) {
      channel.ref = join
    } else {
      channel.bindings[event](payload)
      const { presence } = channel
      const state = JSON.parse(JSON.stringify(presence.state))
      entries.push({ line, topic, pending: presence.inPendingSyncState(), state })
    }
  }
  return entries
}

process.stdout.write(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(replay)))
