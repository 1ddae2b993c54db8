//! Code that runs outside of a call: while its module is imported, and after the answer.

use std::time::Duration;

use crate::bench::{Bench, Check, Running, Told, ensure, mark, marked_processes, output, wait_for_marked};

/// Longer than any grace after an answer, many times.
const PAUSE: Duration = Duration::from_millis(500);
/// What may run after an answer before the instance stands still, on a machine as busy as tests make it.
const GRACE_MAX_US: u64 = 150_000;

/// A thread that computes for ever: from the module's import on, or from its call with `begin` on.
fn spinner(bench: &Bench, at_import: bool) -> piecework_sandbox::Program {
    let python = r#"
import threading
def spin():
    while True:
        pass
def begin():
    try:
        threading.Thread(target=spin, daemon=True).start()
    except RuntimeError:
        return 'absent'
    return 'begun'
begun = begin() if AT_IMPORT else None
def handler(event, context):
    if event != 'begin':
        return event
    return begun or begin()
"#;
    let javascript = r#"
const threads = (import.meta.url.includes('/function/') ? await import('node:worker_threads') : null);
async function begin() {
    if (!threads) return 'absent';
    const worker = new threads.Worker('for (;;);', { eval: true });
    await new Promise((done) => worker.on('online', done));
    return 'begun';
}
const begun = AT_IMPORT ? await begin() : null;
export default async (event) => (event === 'begin' ? (begun ?? begin()) : event);
"#;
    let (yes, no) = (("True", "true"), ("False", "false"));
    let (in_python, in_javascript) = if at_import { yes } else { no };
    bench.program(
        &python.replace("AT_IMPORT", in_python),
        &javascript.replace("AT_IMPORT", in_javascript),
    )
}

pub(super) async fn what_a_call_leaves_running_ends_its_instance_and_is_told(bench: Bench) -> Check {
    let mut running = bench.start(spinner(&bench, false)).await?;
    let finished = running.call("\"begin\"").await;
    let said = output(&finished)?;
    if said == "absent" {
        return Ok(());
    }
    ensure!(said == "begun", "it gave {said}");
    ensure!(!finished.reusable, "it would serve others");
    ensure!(
        finished.logs.text.contains("running; what it left ends here"),
        "its log is {:?}",
        finished.logs.text
    );
    ensure!(!running.instance.is_alive(), "it is still there");
    bench.still_serves().await
}

pub(super) async fn what_runs_after_the_answer_stands_still_and_is_billed(bench: Bench) -> Check {
    let mut running = bench.start(spinner(&bench, true)).await?;
    let said = output(&running.call("\"begin\"").await)?;
    if said == "absent" {
        return Ok(());
    }
    ensure!(said == "begun", "it gave {said}");
    tokio::time::sleep(PAUSE).await;
    let finished = running.call("\"again\"").await;
    ensure!(output(&finished)? == "again", "it gave {}", Told(&finished));
    let most_us = GRACE_MAX_US + u64::try_from(finished.duration.as_micros()).unwrap_or(u64::MAX) * 2;
    let used_us = finished.counters.cpu_us;
    ensure!(used_us <= most_us, "{used_us} us in {PAUSE:?} between two calls");
    ensure!(
        used_us > 1_000,
        "what it used after its answer is billed to nobody: {used_us} us"
    );
    Ok(())
}

pub(super) async fn processes_left_behind_end_with_their_instance(bench: Bench) -> Check {
    let mark = mark();
    let python = r#"
import os
def handler(event, context):
    if not hasattr(os, 'fork'):
        return 'absent'
    if os.fork() == 0:
        os.setsid()
        os.execv('/bin/sh', ['sh', '-c', 'while :; do :; done; : MARK'])
    return 'left'
"#;
    let javascript = r#"
const processes = (import.meta.url.includes('/function/') ? await import('node:child_process') : null);
export default (event) => {
    if (!processes) return 'absent';
    processes.spawn('/bin/sh', ['-c', 'while :; do :; done; : MARK'], { detached: true, stdio: 'ignore' }).unref();
    return 'left';
};
"#;
    let program = bench.program(&python.replace("MARK", &mark), &javascript.replace("MARK", &mark));
    let mut running = bench.start(program).await?;
    if output(&running.call("null").await)? == "absent" {
        return Ok(());
    }
    wait_for_marked(&mark, |count| count == 0, Duration::from_secs(5)).await?;
    // One that was seen before it took the mark is gone by now, too.
    tokio::time::sleep(Duration::from_millis(50)).await;
    ensure!(marked_processes(&mark) == 0, "it came back");
    ensure!(!running.instance.is_alive(), "the instance would serve again");
    bench.still_serves().await
}

pub(super) async fn importing_a_module_is_billed_to_the_first_call(bench: Bench) -> Check {
    let program = bench.program(
        "count = 0\nwhile count < 6_000_000:\n    count += 1\ndef handler(event, context):\n    return event\n",
        "let value = 1; for (let count = 0; count < 1e7; count++) value = Math.sin(value); export default (event) => event;\n",
    );
    let limits = program.limits;
    let loaded = bench.load(program).await.map_err(|error| error.to_string())?;
    loaded.forgive();
    // The first one may be the one that was loaded with the program.
    let _first = Running::of(loaded.clone(), limits).await?;
    let mut second = Running::of(loaded, limits).await?;
    let finished = second.call("1").await;
    output(&finished)?;
    let cold_us = finished.counters.cpu_us;
    ensure!(
        cold_us >= 40_000,
        "of importing, which takes longer, {cold_us} us are billed"
    );
    let finished = second.call("1").await;
    output(&finished)?;
    let warm_us = finished.counters.cpu_us;
    ensure!(
        warm_us < cold_us / 2,
        "{warm_us} us are billed for the second call, too"
    );
    Ok(())
}
