// A server with `ws`; see benchmarks/servers/__init__.py.
import { createInterface } from "node:readline"
import { WebSocketServer } from "ws"

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, backlog: 1024 })
const answer = (facts) => process.stdout.write(JSON.stringify(facts) + "\n")
const moment = () => new Promise((resolve) => setImmediate(resolve))
let start = process.cpuUsage()

server.on("listening", () => answer({ port: server.address().port }))

for await (const line of createInterface({ input: process.stdin })) {
  const { cpu, texts, together } = JSON.parse(line)
  if (cpu) {
    const { user, system } = process.cpuUsage(start)
    answer({ cpu: (user + system) / 1e6 })
    continue
  }
  globalThis.gc?.()
  start = process.cpuUsage()
  for (let first = 0; first < texts.length; first += together) {
    for (const text of texts.slice(first, first + together))
      for (const client of server.clients) client.send(text)
    await moment()
  }
  answer({ said: texts.length })
}
process.exit()
