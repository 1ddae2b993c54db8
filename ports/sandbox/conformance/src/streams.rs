//! Answers that are given piece by piece: what streams, under which head, and how it ends.

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc::Receiver;

use crate::bench::{Bench, Check, Kind, LIMITS, Running, TIMEOUT_SLACK, Told, ensure};
use piecework_sandbox::{CHUNK_BYTES_MAX, Call, Finished, Head, Outcome, Outlet, Program, Sent};

/// A call's end and all that was read of its answer.
pub(super) struct Answered {
    pub(super) finished: Finished,
    pub(super) head: Option<Head>,
    pub(super) bytes: Bytes,
    pub(super) chunks: usize,
}

impl Answered {
    /// The head and the bytes of an answer that came whole.
    fn whole(&self) -> Result<(&Head, &[u8]), String> {
        let told = Told(&self.finished);
        ensure!(
            self.finished.outcome == Outcome::Streamed,
            "expected a stream, got {told}"
        );
        ensure!(
            self.finished.reusable,
            "a stream that ended well must not spoil the instance"
        );
        let billed = self.finished.counters.egress_bytes;
        ensure!(
            billed == self.bytes.len() as u64,
            "{billed} bytes billed of {}",
            self.bytes.len()
        );
        let head = self.head.as_ref().ok_or("a stream without a head")?;
        Ok((head, &self.bytes))
    }
}

/// Calls, and reads the answer as it comes.
pub(super) async fn stream_of(running: &mut Running, mut call: Call) -> Result<Answered, String> {
    let (outlet, parts) = Outlet::channel();
    call.outlet = outlet;
    let (finished, read) = tokio::join!(running.instance.call(call), read(parts));
    let (head, bytes, chunks) = read?;
    Ok(Answered {
        finished,
        head,
        bytes,
        chunks,
    })
}

async fn read(mut parts: Receiver<Sent>) -> Result<(Option<Head>, Bytes, usize), String> {
    let (mut head, mut bytes, mut chunks) = (None, BytesMut::new(), 0);
    while let Some(part) = parts.recv().await {
        match part {
            Sent::Head(first) => {
                ensure!(head.is_none() && chunks == 0, "a head that is not first");
                head = Some(first);
            }
            Sent::Chunk(chunk) => {
                ensure!(head.is_some(), "a chunk before a head");
                ensure!(
                    (1..=CHUNK_BYTES_MAX).contains(&chunk.len()),
                    "a chunk of {} bytes",
                    chunk.len()
                );
                bytes.extend_from_slice(&chunk);
                chunks += 1;
            }
        }
    }
    Ok((head, bytes.freeze(), chunks))
}

pub(super) async fn stream_once(bench: &Bench, program: Program, event: &str) -> Result<Answered, String> {
    let mut running = bench.start(program).await?;
    let call = running.a_call(event);
    stream_of(&mut running, call).await
}

const KINDS_PY: &str = r#"
def handler(event, context):
    for number in range(event):
        yield 'é'
        yield b'\x00\xff'
        yield bytearray(b'')
        yield memoryview(b'view')[::2]
        yield ''
        yield {'n': number, 'bytes': b'hi'}
        yield None
        yield [1, 'ü']
"#;

const KINDS_JS: &str = r#"
export default function* handler(event) {
    for (let number = 0; number < event; number++) {
        yield 'é';
        yield new Uint8Array([7, 0, 255, 7]).subarray(1, 3);
        yield new Uint8Array();
        yield new TextEncoder().encode('ve').buffer;
        yield '';
        yield {n: number, bytes: new Uint8Array([104, 105])};
        yield undefined;
        yield [1, 'ü'];
    }
}
"#;

pub(super) async fn a_generator_streams(bench: Bench) -> Check {
    let mut running = bench.start(bench.program(KINDS_PY, KINDS_JS)).await?;
    for times in [2, 0, 1] {
        let mut told = Vec::new();
        for number in 0..times {
            told.extend_from_slice("é".as_bytes());
            told.extend_from_slice(b"\x00\xff");
            told.extend_from_slice(b"ve");
            told.extend_from_slice(format!("{{\"n\":{number},\"bytes\":{{\"$bytes\":\"aGk=\"}}}}\n").as_bytes());
            told.extend_from_slice("null\n[1,\"ü\"]\n".as_bytes());
        }
        let call = running.a_call(&times.to_string());
        let answered = stream_of(&mut running, call).await?;
        let (head, bytes) = answered.whole()?;
        ensure!(*head == Head::default(), "a generator gave the head {head:?}");
        ensure!(bytes == told, "{times} times: {:?}", String::from_utf8_lossy(bytes));
    }
    Ok(())
}

pub(super) async fn an_asynchronous_generator_streams(bench: Bench) -> Check {
    let program = bench.program(
        "import asyncio\nasync def handler(event, context):\n    for n in range(3):\n        await asyncio.sleep(0.01)\n        yield f'{n},'\n",
        "export default async function* handler() { for (let n = 0; n < 3; n++) { await new Promise((done) => setTimeout(done, 10)); yield `${n},`; } }\n",
    );
    let answered = stream_once(&bench, program, "null").await?;
    let (head, bytes) = answered.whole()?;
    ensure!(*head == Head::default() && bytes == b"0,1,2,", "{head:?} {bytes:?}");
    ensure!(
        answered.chunks == 3,
        "chunks that came apart arrived as {}",
        answered.chunks
    );
    Ok(())
}

pub(super) async fn a_coroutine_may_return_what_streams(bench: Bench) -> Check {
    let program = bench.program(
        r#"
import asyncio
async def chunks(lock):
    for n in range(2):
        async with lock:
            await asyncio.sleep(0.001)
        yield str(n)
async def handler(event, context):
    lock = asyncio.Lock()
    async with lock:
        await asyncio.sleep(0.001)
    if event == 'plain':
        return (str(n) for n in range(2))
    return {'status': 200, 'body': chunks(lock)} if event == 'headed' else chunks(lock)
"#,
        r#"
async function* chunks() { for (let n = 0; n < 2; n++) { await null; yield String(n); } }
export default async (event) => {
    await null;
    if (event === 'plain') return ['0', '1'].values();
    return event === 'headed' ? {status: 200, body: chunks()} : chunks();
};
"#,
    );
    let mut running = bench.start(program).await?;
    for (event, status) in [("\"plain\"", 0), ("\"headed\"", 200), ("\"bare\"", 0)] {
        let call = running.a_call(event);
        let answered = stream_of(&mut running, call).await?;
        let (head, bytes) = answered.whole()?;
        ensure!(head.status == status && bytes == b"01", "{event}: {head:?} {bytes:?}");
    }
    Ok(())
}

/// Whatever else is iterated over, and what looks like it and is data.
pub(super) async fn other_things_to_iterate_over_stream(bench: Bench) -> Check {
    let program = bench.program(
        r#"
import io
class Countdown:
    def __init__(self, n): self.n = n
    def __iter__(self): return self
    def __next__(self):
        if self.n == 0: raise StopIteration
        self.n -= 1
        return str(self.n)
class Slow:
    async def __aiter__(self):
        yield 'sl'
        yield 'ow'
def handler(event, context):
    return {'own': lambda: Countdown(3), 'file': lambda: io.BytesIO(b'a\nb\n'), 'map': lambda: map(str, range(3)), 'async': Slow,
            'list': lambda: ['a', 'b'], 'data': lambda: {'status': 200, 'body': ['a']}}[event]()
"#,
        r#"
class Slow { async *[Symbol.asyncIterator]() { yield 'sl'; yield 'ow'; } }
export default (event) => ({
    own: () => { let n = 3; return {next: () => n-- ? {value: String(n), done: false} : {done: true}, [Symbol.iterator]() { return this; }}; },
    file: () => new ReadableStream({start(c) { c.enqueue('a\n'); c.enqueue(new TextEncoder().encode('b\n')); c.close(); }}),
    map: () => new Map([[0, '0'], [1, '1'], [2, '2']]).values(),
    async: () => new Slow(),
    list: () => ['a', 'b'],
    data: () => ({status: 200, body: ['a']}),
})[event]();
"#,
    );
    let mut running = bench.start(program).await?;
    let countdown = "210";
    for (event, told) in [
        ("own", countdown),
        ("file", "a\nb\n"),
        ("map", "012"),
        ("async", "slow"),
    ] {
        let call = running.a_call(&format!("\"{event}\""));
        let answered = stream_of(&mut running, call).await?;
        let (_, bytes) = answered.whole()?;
        ensure!(bytes == told.as_bytes(), "{event}: {bytes:?}");
    }
    for (event, told) in [("list", r#"["a","b"]"#), ("data", r#"{"status":200,"body":["a"]}"#)] {
        let call = running.a_call(&format!("\"{event}\""));
        let answered = stream_of(&mut running, call).await?;
        let returned = answered.finished.outcome == Outcome::Returned(told.into());
        ensure!(
            returned && answered.head.is_none(),
            "{event} is data: {}",
            Told(&answered.finished)
        );
    }
    Ok(())
}

const HEADS_PY: &str = r#"
from http import HTTPStatus
def handler(event, context):
    headers = {'pairs': [('Set-Cookie', 'a=1'), ('Set-Cookie', 'b=2'), ('x-n', 7)],
               'lists': {'Set-Cookie': ['a=1', 'b=2'], 'x-n': 7},
               'response': (pair for pair in [('set-cookie', 'a=1'), ('set-cookie', b'b=2'), ('x-n', '7')])}[event]
    return {'status': HTTPStatus.CREATED, 'headers': headers, 'body': iter(['x', 'y'])}
"#;

const HEADS_JS: &str = r#"
export default (event) => {
    const body = ['x', 'y'].values();
    if (event === 'pairs') return {status: 201, headers: [['Set-Cookie', 'a=1'], ['Set-Cookie', 'b=2'], ['x-n', 7]], body};
    if (event === 'lists') return {status: 201, headers: {'Set-Cookie': ['a=1', 'b=2'], 'x-n': 7}, body};
    const chunks = new ReadableStream({
        pull(controller) { const {value, done} = body.next(); done ? controller.close() : controller.enqueue(new TextEncoder().encode(value)); },
    });
    const response = new Response(chunks, {status: 201, headers: {'x-n': 7}});
    response.headers.append('Set-Cookie', 'a=1');
    response.headers.append('Set-Cookie', 'b=2');
    return response;
};
"#;

pub(super) async fn a_streamed_answer_has_its_head(bench: Bench) -> Check {
    let mut running = bench.start(bench.program(HEADS_PY, HEADS_JS)).await?;
    let told = [("set-cookie", "a=1"), ("set-cookie", "b=2"), ("x-n", "7")];
    for event in ["\"pairs\"", "\"lists\"", "\"response\""] {
        let call = running.a_call(event);
        let answered = stream_of(&mut running, call).await?;
        let (head, bytes) = answered.whole()?;
        ensure!(bytes == b"xy" && head.status == 201, "{event}: {head:?} {bytes:?}");
        let headers = head.headers.iter().map(|(name, value)| (name.as_str(), &value[..]));
        let same = headers.eq(told.map(|(name, value)| (name, value.as_bytes())));
        ensure!(same, "{event}: {:?}", head.headers);
    }
    Ok(())
}

/// Server-sent events begin long before there is one.
pub(super) async fn a_head_with_a_status_comes_before_the_first_chunk(bench: Bench) -> Check {
    let program = bench.program(
        "import time\ndef later():\n    time.sleep(0.5)\n    yield 'late'\ndef handler(event, context):\n    return {'status': 200, 'body': later()}\n",
        "async function* later() { await new Promise((done) => setTimeout(done, 500)); yield 'late'; }\nexport default () => ({status: 200, body: later()});\n",
    );
    let mut running = bench.start(program).await?;
    let (outlet, mut parts) = Outlet::channel();
    let call = Call {
        outlet,
        ..running.a_call("null")
    };
    let times = async {
        let head = parts.recv().await;
        let first = std::time::Instant::now();
        let chunk = parts.recv().await;
        (head, first.elapsed(), chunk)
    };
    let (_, (head, between, chunk)) = tokio::join!(running.instance.call(call), times);
    ensure!(matches!(head, Some(Sent::Head(_))), "first came {head:?}");
    ensure!(chunk == Some(Sent::Chunk("late".into())), "then came {chunk:?}");
    ensure!(between.as_millis() >= 300, "the head waited for the chunk: {between:?}");
    Ok(())
}

pub(super) async fn a_bad_head_is_invalid(bench: Bench) -> Check {
    let program = bench.program(
        "def handler(event, context):\n    return dict(event, body=iter(['secret']))\n",
        "export default (event) => ({...event, body: ['secret'].values()});\n",
    );
    let mut running = bench.start(program).await?;
    for event in [
        r#"{}"#,
        r#"{"status":"200"}"#,
        r#"{"status":true}"#,
        r#"{"status":99}"#,
        r#"{"status":200,"other":1}"#,
        r#"{"status":200,"headers":{"a b":"c"}}"#,
        r#"{"status":200,"headers":{"a":"b\r\nc: d"}}"#,
        r#"{"status":200,"headers":{"a":null}}"#,
        r#"{"status":200,"headers":{"a":{"b":"c"}}}"#,
    ] {
        let call = running.a_call(event);
        let answered = stream_of(&mut running, call).await?;
        bench.expect(&answered.finished, &[Kind::OutputInvalid])?;
        ensure!(answered.head.is_none() && answered.chunks == 0, "{event} was sent");
        running.renew(answered.finished.reusable).await?;
    }
    Ok(())
}

const FAILS_PY: &str =
    "def handler(event, context):\n    for n in range(event):\n        yield str(n)\n    raise ValueError('brøken')\n";
const FAILS_JS: &str = "export default function* handler(event) { for (let n = 0; n < event; n++) yield String(n); throw new RangeError('brøken'); }\n";

pub(super) async fn an_error_before_the_first_chunk_is_only_an_error(bench: Bench) -> Check {
    let answered = stream_once(&bench, bench.program(FAILS_PY, FAILS_JS), "0").await?;
    bench.expect(&answered.finished, &[Kind::Raised])?;
    ensure!(answered.head.is_none(), "its head was sent");
    ensure!(answered.finished.reusable, "an error spoils no instance");
    Ok(())
}

pub(super) async fn an_error_in_mid_stream_comes_after_what_was_sent(bench: Bench) -> Check {
    let mut running = bench.start(bench.program(FAILS_PY, FAILS_JS)).await?;
    for _ in 0..2 {
        let call = running.a_call("3");
        let answered = stream_of(&mut running, call).await?;
        let Outcome::Raised(raised) = &answered.finished.outcome else {
            return Err(format!("expected an error, got {}", Told(&answered.finished)));
        };
        ensure!(
            raised.message == "brøken" && raised.stack.contains("main."),
            "told {raised:?}"
        );
        ensure!(answered.bytes == "012", "sent before: {:?}", answered.bytes);
        ensure!(
            answered.finished.counters.egress_bytes == 3,
            "it is billed all the same"
        );
        ensure!(answered.finished.reusable, "an error spoils no instance");
    }
    Ok(())
}

pub(super) async fn a_chunk_without_a_form_is_invalid(bench: Bench) -> Check {
    let program = bench.program(
        "def handler(event, context):\n    yield 'fine'\n    yield {'number': lambda: 1, 'nan': float('nan'), 'lone': '\\ud800'}[event]\n",
        "export default function* handler(event) { yield 'fine'; const loop = {}; loop.loop = loop; yield {number: () => 1, nan: 1n, lone: loop}[event]; }\n",
    );
    let mut running = bench.start(program).await?;
    for event in ["\"number\"", "\"lone\""] {
        let call = running.a_call(event);
        let answered = stream_of(&mut running, call).await?;
        bench.expect(&answered.finished, &[Kind::OutputInvalid])?;
        ensure!(answered.bytes == "fine", "sent before: {:?}", answered.bytes);
        running.renew(answered.finished.reusable).await?;
    }
    Ok(())
}

pub(super) async fn sixty_four_mebibytes_pass(bench: Bench) -> Check {
    let mut program = bench.program(
        "def handler(event, context):\n    chunk = bytes(range(256)) * 4096\n    for _ in range(64):\n        yield chunk\n",
        "export default function* handler() { const chunk = new Uint8Array(1 << 20).map((_, at) => at & 255); for (let n = 0; n < 64; n++) yield chunk; }\n",
    );
    program.limits.timeout_ms = 60_000;
    let answered = stream_once(&bench, program, "null").await?;
    let (_, bytes) = answered.whole()?;
    ensure!(bytes.len() == 64 << 20, "{} bytes came", bytes.len());
    let sound = bytes
        .iter()
        .enumerate()
        .all(|(at, byte)| usize::from(*byte) == at & 255);
    ensure!(sound, "they came changed");
    let peak = answered.finished.memory_peak_bytes;
    ensure!(peak < LIMITS.memory_bytes, "a chunk at a time took {peak} bytes");
    Ok(())
}

/// All but the last hundred bytes are as good as sent before.
pub(super) async fn a_stream_is_bounded(bench: Bench) -> Check {
    let program = bench.program(
        "def handler(event, context):\n    while True:\n        yield 'x' * 60\n",
        "export default function* handler() { for (;;) yield 'x'.repeat(60); }\n",
    );
    let limit = program.limits.stream_bytes();
    let mut running = bench.start(program).await?;
    let call = running.a_call("null");
    ensure!(call.egress.take_streamed(limit - 100, limit), "a fresh meter");
    let begun = std::time::Instant::now();
    let answered = stream_of(&mut running, call).await?;
    bench.expect(&answered.finished, &[Kind::OutputTooLarge])?;
    ensure!(answered.bytes.len() <= 100, "{} bytes came", answered.bytes.len());
    ensure!(!answered.finished.reusable, "it had not ended by itself");
    ensure!(begun.elapsed() < TIMEOUT_SLACK * 5, "it took {:?}", begun.elapsed());
    bench.still_serves().await
}
