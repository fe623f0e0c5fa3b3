// phoenix.js, driven over stdin and stdout: see lines.mjs.

import { Presence, Socket } from 'phoenix'
import WebSocket from 'ws'
import { packed, serve, unpacked } from './lines.mjs'

// phoenix.js brings the serializer of V2 only; for V1 it takes this, as its documentation says.
const V1 = {
  vsn: '1.0.0',
  encode: (message, done) => done(JSON.stringify(message)),
  decode: (text, done) => done(JSON.parse(text)),
}

class Client {
  constructor({ url, vsn, heartbeat, token }, tell) {
    this.tell = tell
    this.channels = new Map()
    this.socket = new Socket(url, {
      transport: WebSocket,
      timeout: 5000,
      heartbeatIntervalMs: heartbeat,
      reconnectAfterMs: () => 50,
      rejoinAfterMs: () => 50,
      ...(token ? { authToken: token } : {}),
      ...(vsn === '1.0.0' ? V1 : {}),
    })
    this.socket.onOpen(() => tell({ event: 'socket', what: 'open' }))
    this.socket.onClose(({ code, reason }) => tell({ event: 'socket', what: 'closed', code, reason }))
    this.socket.onMessage(({ topic, payload }) => {
      if (topic === 'phoenix') tell({ event: 'heartbeat', status: payload.status })
    })
  }

  connect() {
    this.socket.connect()
  }

  join({ topic, key, meta }) {
    const tell = (event) => this.tell({ topic, ...event })
    const status = (status, detail) => tell({ event: 'status', status, detail })
    const state = { meta }
    // A function: what was tracked since goes into the next join.
    const channel = this.socket.channel(topic, () => ({ user_id: key, ...state.meta }))
    channel.onMessage = (name, payload) => {
      if (!/^(phx_|chan_reply_|presence_)/.test(name)) tell({ event: 'message', name, payload: packed(payload) })
      return payload
    }
    channel.onError((reason) => status('CHANNEL_ERROR', reason))
    channel.onClose(() => status('CLOSED'))
    const presence = new Presence(channel)
    presence.onJoin((key, current) => tell({ event: 'join', key, others: current?.metas.length ?? 0 }))
    presence.onLeave((key, current) => tell({ event: 'leave', key, others: current.metas.length }))
    presence.onSync(() => {
      tell({ event: 'sync', state: Object.fromEntries(presence.list((key, { metas }) => [key, metas])) })
    })
    this.channels.set(topic, { channel, state })
    channel
      .join()
      .receive('ok', () => status('SUBSCRIBED'))
      .receive('error', (response) => status('CHANNEL_ERROR', response))
      .receive('timeout', () => status('TIMED_OUT'))
  }

  push({ topic, name, payload }) {
    return new Promise((resolve) => {
      const push = this.channels.get(topic).channel.push(name, unpacked(payload))
      for (const status of ['ok', 'error', 'timeout']) {
        push.receive(status, (response) => resolve({ status, response: packed(response ?? null) }))
      }
    })
  }

  track({ topic, meta }) {
    this.channels.get(topic).state.meta = meta
    return this.push({ topic, name: 'track', payload: { json: meta } })
  }

  untrack({ topic }) {
    return this.push({ topic, name: 'untrack', payload: { json: {} } })
  }

  leave({ topic }) {
    return new Promise((resolve) => {
      const push = this.channels.get(topic).channel.leave()
      for (const status of ['ok', 'error', 'timeout']) push.receive(status, () => resolve(status))
    })
  }

  ping() {
    return new Promise((resolve) => this.socket.ping(resolve))
  }

  disconnect() {
    return new Promise((resolve) => this.socket.disconnect(resolve))
  }
}

serve((args, tell) => new Client(args, tell))
