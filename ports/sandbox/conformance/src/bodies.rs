//! The body of a request, taken in while the call runs.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use crate::{
    bench::{Bench, Check, Kind, Running, ensure, output},
    streams::stream_of,
};
use piecework_sandbox::{BackendName, CHUNK_BYTES_MAX, Call, Inlet};

/// A call whose body is these parts, given as it takes them.
fn with_body(running: &Running, event: &str, parts: Vec<Bytes>) -> Call {
    let (sender, body) = Inlet::channel();
    tokio::spawn(async move {
        for part in parts {
            // A call that leaves its body stops this.
            if sender.send(part).await.is_err() {
                return;
            }
        }
    });
    Call {
        body: Some(body),
        ..running.a_call(event)
    }
}

fn parts(texts: &[&str]) -> Vec<Bytes> {
    texts
        .iter()
        .map(|text| Bytes::copy_from_slice(text.as_bytes()))
        .collect()
}

const READS_PY: &str = r#"
def handler(event, context):
    body = context.body
    if event == 'all': return body.read().decode()
    if event == 'sizes': return [body.read(2).decode(), body.read(0).decode(), body.read(5).decode(), body.read(100).decode(), body.read(1).decode(), body.read().decode()]
    if event == 'mixed': return [body.read(1).decode(), [part.decode() for part in body]]
    return [part.decode() for part in body]
"#;

const READS_JS: &str = r#"
const text = (bytes) => new TextDecoder().decode(bytes);
export default async (event, context) => {
    const body = context.body;
    if (event === 'reader') {
        const reader = body.getReader();
        const first = text((await reader.read()).value);
        reader.releaseLock();
        const rest = [];
        for await (const part of body) rest.push(text(part));
        return [first, rest];
    }
    const found = [];
    for await (const part of body) {
        if (!(part instanceof Uint8Array)) throw new TypeError('not bytes');
        found.push(text(part));
    }
    return event === 'all' ? found.join('') : found;
};
"#;

pub(super) async fn a_body_goes_in(bench: Bench) -> Check {
    let mut running = bench.start(bench.program(READS_PY, READS_JS)).await?;
    let given = parts(&["ab", "", "cdé", "f"]);
    let told = match bench.language {
        piecework_model::Language::Image => unreachable!("images have tests of their own"),
        piecework_model::Language::Python => vec![
            ("all", json!("abcdéf")),
            ("parts", json!(["ab", "cdé", "f"])),
            ("sizes", json!(["ab", "", "cdéf", "", "", ""])),
            ("mixed", json!(["a", ["b", "cdé", "f"]])),
        ],
        piecework_model::Language::JavaScript => vec![
            ("all", json!("abcdéf")),
            ("parts", json!(["ab", "cdé", "f"])),
            ("reader", json!(["ab", ["cdé", "f"]])),
        ],
    };
    for (event, told) in told {
        let call = with_body(&running, &format!("\"{event}\""), given.clone());
        let said = output(&running.instance.call(call).await)?;
        ensure!(said == told, "{event}: {said}");
    }
    let call = with_body(&running, "\"all\"", Vec::new());
    let said = output(&running.instance.call(call).await)?;
    ensure!(said == "", "an empty body gave {said}");
    Ok(())
}

/// Other work of the function goes on while it waits for the next part, where the sandbox has an event loop that can.
pub(super) async fn a_body_is_read_asynchronously(bench: Bench) -> Check {
    let program = bench.program(
        r#"
import asyncio
async def handler(event, context):
    ticks = 0
    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1
    ticking = asyncio.create_task(tick())
    found = [part.decode() async for part in context.body]
    await asyncio.sleep(0.05)
    ticking.cancel()
    return [''.join(found), ticks > 0]
"#,
        r#"
export default async (event, context) => {
    let ticks = 0;
    const ticking = setInterval(() => ticks++, 10);
    let found = '';
    for await (const part of context.body) found += new TextDecoder().decode(part);
    await new Promise((done) => setTimeout(done, 50));
    clearInterval(ticking);
    return [found, ticks > 0];
};
"#,
    );
    let mut running = bench.start(program).await?;
    let (sender, body) = Inlet::channel();
    let call = Call {
        body: Some(body),
        ..running.a_call("null")
    };
    let sends = async move {
        for part in ["slow", "ly"] {
            tokio::time::sleep(Duration::from_millis(100)).await;
            sender.send(part.into()).await.expect("the function reads on");
        }
    };
    let (finished, ()) = tokio::join!(running.instance.call(call), sends);
    let said = output(&finished)?;
    ensure!(said == json!(["slowly", true]), "got {said}");
    Ok(())
}

pub(super) async fn a_large_body_comes_back(bench: Bench) -> Check {
    let mut program = bench.program(
        "def handler(event, context):\n    return context.body\n",
        "export default (event, context) => ({status: 200, body: context.body});\n",
    );
    program.limits.timeout_ms = 60_000;
    let mut running = bench.start(program).await?;
    let part = Bytes::from_iter((0..=255).cycle().take(3 * CHUNK_BYTES_MAX + 17));
    let given = vec![part.clone(); 100];
    let length: usize = given.iter().map(Bytes::len).sum();
    let call = with_body(&running, "null", given);
    let answered = stream_of(&mut running, call).await?;
    bench.expect(&answered.finished, &[Kind::Streamed])?;
    ensure!(
        answered.bytes.len() == length,
        "{} of {length} bytes",
        answered.bytes.len()
    );
    ensure!(
        answered.bytes.chunks(part.len()).all(|found| found == part),
        "they came back changed"
    );
    ensure!(answered.finished.reusable, "an echo spoils no instance");
    Ok(())
}

const LEAVES_PY: &str = r#"
import asyncio, threading
kept = None
def handler(event, context):
    global kept
    if event == 'part':
        return next(context.body).decode()
    if event == 'pending':
        async def waits():
            task = asyncio.create_task(anext(context.body))
            await asyncio.sleep(0.05)
            task.cancel()
            return 'left'
        kept = context.body
        return asyncio.run(waits())
    if event == 'later':
        return [kept.read().decode(), context.body is None]
    return 'unread'
"#;

const LEAVES_JS: &str = r#"
let kept = null;
export default async (event, context) => {
    if (event === 'part') return new TextDecoder().decode((await context.body.getReader().read()).value);
    if (event === 'pending') {
        kept = context.body.getReader();
        if (globalThis.process?.versions?.node) {
            kept.read().catch(() => {});
            await new Promise((done) => setTimeout(done, 50));
        }
        return 'left';
    }
    if (event === 'later') {
        const {value} = await kept.read().catch(() => ({}));
        return [value ? 'more' : '', context.body === null];
    }
    return 'unread';
};
"#;

/// A call takes none of its body, a part of it, or waits for what never comes; the next call is as any other.
pub(super) async fn a_body_that_is_left_disturbs_no_later_call(bench: Bench) -> Check {
    let mut running = bench.start(bench.program(LEAVES_PY, LEAVES_JS)).await?;
    // In WebAssembly a read holds up everything: there nobody leaves one that waits.
    let reads_beside = bench.name() != BackendName::Wasm;
    for _ in 0..2 {
        for (event, told) in [("unread", "unread"), ("part", "first"), ("pending", "left")] {
            let mut given = parts(&["first"]);
            given.extend(vec![Bytes::from(vec![b'x'; CHUNK_BYTES_MAX]); 10]);
            let (never, pending) = Inlet::channel();
            let mut call = with_body(&running, &format!("\"{event}\""), given);
            if event == "pending" && reads_beside {
                call.body = Some(pending);
            }
            let finished = running.instance.call(call).await;
            drop(never);
            let said = output(&finished)?;
            ensure!(said == told, "{event}: {said}");
            ensure!(finished.reusable, "{event}: a body that is left spoils no instance");
        }
        let said = output(&running.call("\"later\"").await)?;
        ensure!(said == json!(["", true]), "an old body gave {said}");
    }
    Ok(())
}

pub(super) async fn a_body_that_never_comes_is_timed_out(bench: Bench) -> Check {
    let mut program = bench.program(READS_PY, READS_JS);
    program.limits.timeout_ms = 500;
    let mut running = bench.start(program).await?;
    let (sender, body) = Inlet::channel();
    let call = Call {
        body: Some(body),
        ..running.a_call("\"all\"")
    };
    let finished = running.instance.call(call).await;
    drop(sender);
    bench.expect(&finished, &[Kind::TimedOut])?;
    ensure!(
        finished.counters.cpu_us < 400_000,
        "it used {} us to wait",
        finished.counters.cpu_us
    );
    bench.still_serves().await
}

pub(super) async fn there_is_no_body_where_none_was_given(bench: Bench) -> Check {
    let program = bench.program(
        "def handler(event, context):\n    return context.body is None\n",
        "export default (event, context) => context.body === null;\n",
    );
    let said = bench.output(program, "null").await?;
    ensure!(said == true, "got {said}");
    Ok(())
}
