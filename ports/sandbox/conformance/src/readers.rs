//! Whoever reads a streamed answer: goes away, is slow, or never reads.

use std::time::{Duration, Instant};

use crate::{
    bench::{Bench, Check, Kind, TIMEOUT_SLACK, Told, ensure},
    streams::stream_of,
};
use piecework_sandbox::{CHUNK_BYTES_MAX, Call, Outlet, Sent};

const ENDLESS_PY: &str = "def handler(event, context):\n    n = 0\n    while True:\n        print('chunk', n)\n        n += 1\n        yield b'x' * 65536\n";
const ENDLESS_JS: &str = "export default function* handler() { for (let n = 0; ; n++) { console.log('chunk', n); yield new Uint8Array(65536); } }\n";

const SILENT_PY: &str = "import time\ndef handler(event, context):\n    yield 'first'\n    time.sleep(9)\n";
const SILENT_JS: &str = "export default async function* handler() { yield 'first'; await new Promise((done) => setTimeout(done, 9000)); }\n";

/// Chunks that may lie between a function and a reader that does not read: the outlet, the channel's own, and what the kernel
/// holds of a socket pair.
const CHUNKS_ON_THE_WAY_MAX: usize = 24;

pub(super) async fn a_reader_that_goes_ends_a_call_that_writes(bench: Bench) -> Check {
    goes(bench, (ENDLESS_PY, ENDLESS_JS)).await
}

pub(super) async fn a_reader_that_goes_ends_a_call_that_is_silent(bench: Bench) -> Check {
    goes(bench, (SILENT_PY, SILENT_JS)).await
}

/// Reads one chunk and goes; the call ends long before its time.
async fn goes(bench: Bench, (python, javascript): (&str, &str)) -> Check {
    let mut running = bench.start(bench.program(python, javascript)).await?;
    let (outlet, mut parts) = Outlet::channel();
    let call = Call {
        outlet,
        ..running.a_call("null")
    };
    let reads = async move {
        while let Some(part) = parts.recv().await {
            if matches!(part, Sent::Chunk(_)) {
                break;
            }
        }
        drop(parts);
        Instant::now()
    };
    let (finished, gone) = tokio::join!(running.instance.call(call), reads);
    bench.expect(&finished, &[Kind::Stopped])?;
    ensure!(!finished.reusable, "it had not ended by itself");
    let took = gone.elapsed();
    ensure!(took < TIMEOUT_SLACK, "it ended {took:?} after its reader had gone");
    let sent = finished.counters.egress_bytes;
    ensure!(sent >= 5, "what was sent is billed: {sent}");
    bench.still_serves().await
}

pub(super) async fn a_slow_reader_holds_the_writer_up(bench: Bench) -> Check {
    let mut running = bench.start(bench.program(ENDLESS_PY, ENDLESS_JS)).await?;
    let (outlet, mut parts) = Outlet::channel();
    let call = Call {
        outlet,
        ..running.a_call("null")
    };
    let stop = call.stop.clone();
    let reads = async move {
        for _ in 0..3 {
            parts.recv().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        stop.cancel();
        parts
    };
    let (finished, _parts) = tokio::join!(running.instance.call(call), reads);
    bench.expect(&finished, &[Kind::Stopped])?;
    let made = finished.logs.text.lines().count();
    ensure!(made >= 2, "it made no chunks: {}", Told(&finished));
    ensure!(
        made <= CHUNKS_ON_THE_WAY_MAX,
        "{made} chunks were made for a reader that took two"
    );
    let counted = finished.counters.egress_bytes;
    let passed = (8 * CHUNK_BYTES_MAX) as u64;
    ensure!(
        counted <= passed,
        "{counted} bytes went towards a reader that took two chunks"
    );
    Ok(())
}

pub(super) async fn a_reader_that_never_reads_costs_time_and_no_cpu(bench: Bench) -> Check {
    let mut program = bench.program(ENDLESS_PY, ENDLESS_JS);
    program.limits.timeout_ms = 1_000;
    let mut running = bench.start(program).await?;
    let (outlet, parts) = Outlet::channel();
    let call = Call {
        outlet,
        ..running.a_call("null")
    };
    let begun = Instant::now();
    let finished = running.instance.call(call).await;
    drop(parts);
    bench.expect(&finished, &[Kind::TimedOut])?;
    let took = begun.elapsed();
    ensure!(took < Duration::from_secs(1) + TIMEOUT_SLACK, "it took {took:?}");
    let cpu_us = finished.counters.cpu_us;
    ensure!(cpu_us < 500_000, "a second of waiting took {cpu_us} us of CPU");
    bench.still_serves().await
}

/// Frozen while it waits for its reader, and while it writes.
pub(super) async fn a_frozen_stream_goes_on_later(bench: Bench) -> Check {
    let program = bench.program(
        "def handler(event, context):\n    for _ in range(40):\n        yield b'x' * 65536\n",
        "export default function* handler() { for (let n = 0; n < 40; n++) yield new Uint8Array(65536); }\n",
    );
    let mut running = bench.start(program).await?;
    let call = running.a_call("null");
    let freezes = async {
        tokio::time::sleep(Duration::from_millis(3)).await;
        if bench.freeze(true) {
            tokio::time::sleep(Duration::from_millis(200)).await;
            bench.freeze(false);
        }
    };
    let (answered, ()) = tokio::join!(stream_of(&mut running, call), freezes);
    let answered = answered?;
    bench.expect(&answered.finished, &[Kind::Streamed])?;
    ensure!(
        answered.bytes.len() == 40 * 65_536,
        "{} bytes came",
        answered.bytes.len()
    );
    Ok(())
}
