// Runs histories of presence states and diffs through phoenix.js.
//
// stdin: [[[event, payload], ...], ...], one list of steps per history. stdout: for each step
// {state, joins: [[key, metas], ...], leaves: [[key, metas], ...]}, as phoenix.js has the state afterwards and
// as it called onJoin and onLeave.
import { readFileSync } from "node:fs"
import { Presence } from "phoenix"

const copy = (value) => JSON.parse(JSON.stringify(value))

function replay(history) {
  let state = Object.create(null)
  return history.map(([event, payload]) => {
    const joins = []
    const leaves = []
    const onJoin = (key, _current, joined) => joins.push([key, copy(joined.metas)])
    const onLeave = (key, _current, left) => leaves.push([key, copy(left.metas)])
    const sync = event === "presence_state" ? Presence.syncState : Presence.syncDiff
    state = sync.call(Presence, state, payload, onJoin, onLeave)
    return { state: copy(state), joins, leaves }
  })
}

const histories = JSON.parse(readFileSync(0, "utf8"))
process.stdout.write(JSON.stringify(histories.map(replay)))
