// phoenix.js as shipped: from a push or a heartbeat to the text for its WebSocket. See contestants/saying.py.
import { createInterface } from "node:readline"
import { Socket } from "phoenix"
import { Transport } from "./child.mjs"

const TEXT = "Is anybody there? ".repeat(4)
const socket = new Socket("ws://127.0.0.1/socket", { transport: Transport, vsn: "2.0.0", timeout: 1e9 })
socket.connect()
const channel = socket.channel("realtime:jarvis-presence", {})
await new Promise((resolve) => channel.join().receive("ok", resolve))

for await (const line of createInterface({ input: process.stdin })) {
  const { count } = JSON.parse(line)
  const payload = { user_id: "me", display_name: "Me", channel: "all", content: TEXT, timestamp: null }
  const start = process.cpuUsage()
  for (let number = 0; number < count; number++) {
    channel.push("broadcast", { type: "broadcast", event: "chat_message", payload })
  }
  const { user, system } = process.cpuUsage(start)
  process.stdout.write(JSON.stringify({ cpu: (user + system) / 1e6 }) + "\n")
}
process.exit()
