// phoenix.js as shipped, over a loopback socket with `ws`, served by benchmarks/feeder.py.
import { Presence, Socket } from "phoenix"
import { WebSocket } from "ws"
import { serve } from "./child.mjs"

let socket = null
let channel = null
let presence = null
let events = 0
let done = () => {}

await serve({
  async load([topic], port) {
    socket?.disconnect()
    // 256 MiB: a state of 10,000 users is a large message.
    const transport = class extends WebSocket {
      constructor(url, protocols) {
        super(url, protocols, { maxPayload: 1 << 28, perMessageDeflate: false })
      }
    }
    socket = new Socket(`ws://127.0.0.1:${port}/socket`, { transport, vsn: "2.0.0" })
    socket.connect()
    channel = socket.channel(topic, {})
    presence = new Presence(channel)
    presence.onJoin(() => events++)
    presence.onLeave(() => events++)
    presence.onSync(() => events++)
    channel.on("broadcast", () => done())
    const end = new Promise((resolve) => { done = resolve })
    channel.join()
    await end
  },
  async run() {
    events = 0
    const end = new Promise((resolve) => { done = resolve })
    channel.push("broadcast", { type: "broadcast", event: "chat_message", payload: { content: "go" } })
    await end
    return events
  },
  roster() {
    return Object.keys(presence.state).map((key) => [key, []])
  },
})
