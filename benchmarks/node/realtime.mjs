// realtime-js as shipped, from the text of a message to the callbacks of a channel.
import { RealtimeClient } from "@supabase/realtime-js"
import { Transport, keyed, serve } from "./child.mjs"

const vsn = process.argv.includes("v1") ? "1.0.0" : "2.0.0"

let channels = new Map()
let client = null
let events = 0

await serve({
  async load(topics) {
    await client?.disconnect()
    client = new RealtimeClient("ws://127.0.0.1/realtime/v1", {
      transport: Transport,
      params: { apikey: "key" },
      vsn,
    })
    channels = new Map()
    const joins = topics.map((topic) => {
      const channel = client.channel(topic.replace("realtime:", ""), { config: { presence: { key: "me" } } })
      channel.on("presence", { event: "join" }, () => events++)
      channel.on("presence", { event: "leave" }, () => events++)
      channel.on("presence", { event: "sync" }, () => events++)
      channels.set(topic, channel)
      return new Promise((resolve) => channel.subscribe((status) => status === "SUBSCRIBED" && resolve()))
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
    const topics = [...channels.keys()]
    return topics.flatMap((topic) =>
      Object.entries(channels.get(topic).presenceState()).map(([key, metas]) => [
        keyed(topics, topic, key),
        metas.map((meta) => meta.presence_ref),
      ]),
    )
  },
})
