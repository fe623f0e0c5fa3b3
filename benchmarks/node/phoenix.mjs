// phoenix.js as shipped, from the text of a message to the callbacks of Presence.
import { Presence, Socket } from "phoenix"
import { Transport, keyed, serve } from "./child.mjs"

// V2 is what it speaks. For V1 it is given another serializer, as its documentation has it.
const v1 = process.argv.includes("v1") && {
  vsn: "1.0.0",
  encode: (message, done) => done(JSON.stringify(message)),
  decode: (data, done) => done({ join_ref: null, ...JSON.parse(data) }),
}

let presences = new Map()
let socket = null
let events = 0

await serve({
  async load(topics) {
    socket?.disconnect()
    socket = new Socket("ws://127.0.0.1/socket", { transport: Transport, ...(v1 || { vsn: "2.0.0" }) })
    socket.connect()
    presences = new Map()
    const joins = topics.map((topic) => {
      const channel = socket.channel(topic, {})
      const presence = new Presence(channel)
      presence.onJoin(() => events++)
      presence.onLeave(() => events++)
      presence.onSync(() => events++)
      presences.set(topic, presence)
      return new Promise((resolve) => channel.join().receive("ok", resolve))
    })
    await Promise.all(joins)
  },
  run(texts) {
    events = 0
    const transport = Transport.last
    for (const data of texts) transport.onmessage({ data })
    return events
  },
  roster() {
    const topics = [...presences.keys()]
    return topics.flatMap((topic) =>
      Object.entries(presences.get(topic).state).map(([key, { metas }]) => [
        keyed(topics, topic, key),
        metas.map((meta) => meta.phx_ref),
      ]),
    )
  },
})
