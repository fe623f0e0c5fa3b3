// @supabase/realtime-js, driven over stdin and stdout: see lines.mjs.

import { RealtimeClient } from '@supabase/realtime-js'
import WebSocket from 'ws'
import { packed, serve, unpacked } from './lines.mjs'

class Client {
  constructor({ url, vsn, heartbeat, apikey, tokens }, tell) {
    this.tell = tell
    this.channels = new Map()
    this.client = new RealtimeClient(url, {
      transport: WebSocket,
      timeout: 5000,
      heartbeatIntervalMs: heartbeat,
      heartbeatCallback: (status) => tell({ event: 'heartbeat', status }),
      reconnectAfterMs: () => 50,
      params: { apikey },
      vsn,
      // One after the other, the last one for ever.
      ...(tokens ? { accessToken: async () => (tokens.length > 1 ? tokens.shift() : tokens[0]) } : {}),
    })
    this.client.socketAdapter.onOpen(() => tell({ event: 'socket', what: 'open' }))
    this.client.socketAdapter.onClose(({ code, reason }) => tell({ event: 'socket', what: 'closed', code, reason }))
  }

  connect() {
    this.client.connect()
  }

  join({ topic, config, postgres }) {
    const tell = (event) => this.tell({ topic, ...event })
    const channel = this.client.channel(topic.replace(/^realtime:/, ''), { config })
    const entry = { channel, meta: null }
    channel.on('presence', { event: 'sync' }, () => tell({ event: 'sync', state: channel.presenceState() }))
    channel.on('presence', { event: 'join' }, ({ key, currentPresences }) =>
      tell({ event: 'join', key, others: currentPresences.length }),
    )
    channel.on('presence', { event: 'leave' }, ({ key, currentPresences }) =>
      tell({ event: 'leave', key, others: currentPresences.length }),
    )
    channel.on('broadcast', { event: '*' }, ({ event, payload }) =>
      tell({ event: 'message', name: event, payload: packed(payload) }),
    )
    channel.on('system', {}, (payload) => tell({ event: 'system', payload }))
    for (const binding of postgres ?? []) channel.on('postgres_changes', binding, () => {})
    this.channels.set(topic, entry)
    channel.subscribe((status, error) => {
      tell({ event: 'status', status, detail: error ? { message: error.message, cause: error.cause } : null })
      // As the library's own documentation tells applications to do it.
      if (status === 'SUBSCRIBED' && entry.meta !== null) channel.track(entry.meta)
    })
  }

  track({ topic, meta }) {
    const entry = this.channels.get(topic)
    entry.meta = meta
    return entry.channel.track(meta)
  }

  untrack({ topic }) {
    const entry = this.channels.get(topic)
    entry.meta = null
    return entry.channel.untrack()
  }

  broadcast({ topic, name, payload }) {
    return this.channels.get(topic).channel.send({ type: 'broadcast', event: name, payload: unpacked(payload) })
  }

  leave({ topic }) {
    return this.client.removeChannel(this.channels.get(topic).channel)
  }

  setAuth({ token }) {
    return this.client.setAuth(token)
  }

  disconnect() {
    return this.client.disconnect()
  }
}

serve((args, tell) => new Client(args, tell))
