//! The limits of a call, on the cold and on the warm path: time, memory, processes, disk.

use std::time::{Duration, Instant};

use crate::bench::{
    Bench, Check, Kind, Running, TIMEOUT_SLACK, Told, call, ensure, mark, marked_processes, output, start,
    wait_for_marked,
};
use piecework_sandbox::Program;

/// Calls `attack` on a fresh instance and on one that has served before; both must be timed out in time.
async fn times_out_cold_and_warm(bench: &Bench, mut program: Program) -> Check {
    program.limits.timeout_ms = 300;
    let mut running = bench.start(program).await?;
    let cold = running.call("\"attack\"").await;
    check_timed_out(bench, &cold)?;
    running.renew(cold.reusable).await?;
    let calm = running.call("\"calm\"").await;
    ensure!(output(&calm)? == "calm", "the calm call gave {}", Told(&calm));
    running.renew(calm.reusable).await?;
    let warm = running.call("\"attack\"").await;
    check_timed_out(bench, &warm)?;
    drop(running);
    bench.still_serves().await
}

fn check_timed_out(bench: &Bench, finished: &piecework_sandbox::Finished) -> Check {
    bench.expect(finished, &[Kind::TimedOut])?;
    let most = Duration::from_millis(300) + TIMEOUT_SLACK;
    ensure!(
        finished.duration <= most,
        "it ran for {:?} with a timeout of 300 ms",
        finished.duration
    );
    Ok(())
}

pub(super) async fn a_busy_loop_is_timed_out_cold_and_warm(bench: Bench) -> Check {
    let program = bench.program(
        "def handler(event, context):\n    while event == 'attack':\n        try:\n            pass\n        except BaseException:\n            pass\n    return event\n",
        "export default (event) => { while (event === 'attack'); return event; };\n",
    );
    times_out_cold_and_warm(&bench, program).await
}

pub(super) async fn a_sleeper_is_timed_out_cold_and_warm(bench: Bench) -> Check {
    let program = bench.program(
        "import time\ndef handler(event, context):\n    if event == 'attack':\n        time.sleep(3600)\n    return event\n",
        "export default async (event) => { if (event === 'attack') { if (globalThis.setTimeout) await new Promise((done) => setTimeout(done, 3600000)); else for (;;); } return event; };\n",
    );
    times_out_cold_and_warm(&bench, program).await
}

/// A handler that leaves a daemon behind which ignores signals, and waits for ever itself.
fn daemon(bench: &Bench, mark: &str) -> Program {
    let python = r#"
import os, signal, time
def handler(event, context):
    if event == 'calm':
        return event
    if not hasattr(os, 'fork'):
        return 'absent'
    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv('/bin/sh', ['sh', '-c', 'trap "" HUP INT TERM QUIT; while :; do sleep 1; done; : MARK'])
        os._exit(0)
    if event == 'leave':
        return 'left'
    while True:
        time.sleep(1)
"#;
    let javascript = r#"
const processes = (import.meta.url.includes('/function/') ? await import('node:child_process') : null);
export default async (event) => {
    if (event === 'calm') return event;
    if (!processes) return 'absent';
    for (const signal of ['SIGHUP', 'SIGINT', 'SIGTERM', 'SIGQUIT']) process.on(signal, () => {});
    processes.spawn('/bin/sh', ['-c', 'trap "" HUP INT TERM QUIT; while :; do sleep 1; done; : MARK'], {detached: true, stdio: 'ignore'}).unref();
    if (event === 'leave') return 'left';
    await new Promise((done) => setTimeout(done, 3600000));
};
"#;
    bench.program(&python.replace("MARK", mark), &javascript.replace("MARK", mark))
}

pub(super) async fn a_stubborn_daemon_dies_with_the_timeout(bench: Bench) -> Check {
    let mark = mark();
    let mut program = daemon(&bench, &mark);
    program.limits.timeout_ms = 1_500;
    let mut running = bench.start(program).await?;
    for _ in 0..2 {
        let finished = running.call("\"attack\"").await;
        if output(&finished).is_ok_and(|said| said == "absent") {
            return Ok(());
        }
        bench.expect(&finished, &[Kind::TimedOut])?;
        ensure!(
            finished.duration <= Duration::from_millis(1_500) + TIMEOUT_SLACK,
            "late: {}",
            Told(&finished)
        );
        wait_for_marked(&mark, |count| count == 0, Duration::from_secs(1)).await?;
        running.renew(finished.reusable).await?;
        let calm = running.call("\"calm\"").await;
        ensure!(output(&calm)? == "calm", "the calm call gave {}", Told(&calm));
    }
    bench.still_serves().await
}

pub(super) async fn a_memory_bomb_hits_only_itself(bench: Bench) -> Check {
    let source = (
        "def handler(event, context):\n    hoard = []\n    while event == 'attack':\n        hoard.append(b'x' * (4 << 20))\n    return event\n",
        "export default (event) => { const hoard = []; while (event === 'attack') hoard.push(new Uint8Array(4 << 20).fill(7)); return event; };\n",
    );
    let mut neighbour = bench.start(bench.program(source.0, source.1)).await?;
    output(&neighbour.call("\"calm\"").await)?;
    let mut running = bench.start(bench.program(source.0, source.1)).await?;
    for _ in 0..2 {
        let finished = running.call("\"attack\"").await;
        bench.expect(&finished, &[Kind::OutOfMemory])?;
        let peak = finished.memory_peak_bytes;
        ensure!(peak <= 160 << 20, "with a limit of 128 MiB it held {peak} bytes");
        running.renew(finished.reusable).await?;
        let calm = running.call("\"calm\"").await;
        ensure!(output(&calm)? == "calm", "the calm call gave {}", Told(&calm));
        running.renew(calm.reusable).await?;
    }
    let said = output(&neighbour.call("\"calm\"").await)?;
    ensure!(said == "calm", "the neighbour returned {said}");
    Ok(())
}

pub(super) async fn a_fork_bomb_is_bounded(bench: Bench) -> Check {
    let python = r#"
import os, time
def handler(event, context):
    count = 0
    if not hasattr(os, 'fork'):
        return count
    while count < 500:
        try:
            if os.fork() == 0:
                while True:
                    time.sleep(100)
            count += 1
        except OSError:
            break
    return count
"#;
    let javascript = r#"
const processes = (import.meta.url.includes('/function/') ? await import('node:child_process') : null);
export default async () => {
    if (!processes) return 0;
    let count = 0;
    for (let i = 0; i < 100; i++) {
        const done = await new Promise((done) => {
            try {
                const child = processes.spawn('/bin/sleep', ['100'], {stdio: 'ignore'});
                child.on('error', () => done(false));
                child.on('spawn', () => done(true));
            } catch { done(false); }
        });
        if (!done) break;
        count++;
    }
    return count;
};
"#;
    let program = bench.program(python, javascript);
    let processes = program.limits.processes;
    let finished = bench.once(program, "null").await?;
    if Kind::of(&finished.outcome) == Kind::Returned {
        let count = output(&finished)?.as_u64().unwrap_or(u64::MAX);
        ensure!(
            count <= processes.into(),
            "{count} processes with a limit of {processes}"
        );
    } else {
        bench.expect(&finished, &[Kind::Raised, Kind::Crashed, Kind::OutOfMemory])?;
    }
    bench.still_serves().await
}

pub(super) async fn a_disk_fill_is_bounded(bench: Bench) -> Check {
    let python = r#"
import os
def handler(event, context):
    total = 0
    try:
        for number in range(8):
            with open('/tmp/fill-%d' % number, 'wb', buffering=0) as file:
                for _ in range(64):
                    total += file.write(b'x' * (1 << 20))
    except OSError:
        pass
    return total
"#;
    let javascript = r#"
const fs = (import.meta.url.includes('/function/') ? await import('node:fs') : null);
export default () => {
    let total = 0;
    try {
        for (let number = 0; number < 8; number++) {
            const fd = fs.openSync(`/tmp/fill-${number}`, 'w');
            for (let i = 0; i < 64; i++) total += fs.writeSync(fd, Buffer.alloc(1 << 20, 7));
        }
    } catch {}
    return total;
};
"#;
    let program = bench.program(python, javascript);
    let limit = program.limits.disk_bytes;
    let finished = bench.once(program, "null").await?;
    if Kind::of(&finished.outcome) == Kind::Returned {
        let total = output(&finished)?.as_u64().unwrap_or(u64::MAX);
        ensure!(total <= limit, "{total} bytes were written with a limit of {limit}");
    } else {
        bench.expect(&finished, &[Kind::Raised, Kind::Crashed, Kind::OutOfMemory])?;
    }
    bench.still_serves().await
}

/// More files than any function needs; a bounded backend stops far below.
pub(super) async fn many_files_are_bounded(bench: Bench) -> Check {
    let python = r#"
def handler(event, context):
    count = 0
    try:
        while count < 50000:
            open('/tmp/many-%d' % count, 'w').close()
            count += 1
    except OSError:
        pass
    return count
"#;
    let javascript = r#"
const fs = (import.meta.url.includes('/function/') ? await import('node:fs') : null);
export default () => {
    let count = 0;
    try {
        while (count < 50000) { fs.closeSync(fs.openSync(`/tmp/many-${count}`, 'w')); count++; }
    } catch {}
    return count;
};
"#;
    let finished = bench.once(bench.program(python, javascript), "null").await?;
    if Kind::of(&finished.outcome) == Kind::Returned {
        let count = output(&finished)?.as_u64().unwrap_or(u64::MAX);
        ensure!(count < 20_000, "{count} files were made");
    } else {
        bench.expect(&finished, &[Kind::Raised, Kind::Crashed, Kind::OutOfMemory])?;
    }
    bench.still_serves().await
}

/// More descriptors than any function needs; they are the whole machine's.
pub(super) async fn open_files_are_bounded(bench: Bench) -> Check {
    let python = r#"
def handler(event, context):
    held = []
    try:
        while len(held) < 20000:
            held.append(open(__file__))
    except OSError:
        pass
    return len(held)
"#;
    let javascript = r#"
const fs = (import.meta.url.includes('/function/') ? await import('node:fs') : null);
export default () => {
    let count = 0;
    try {
        while (count < 20000) { fs.openSync(process.execPath); count++; }
    } catch {}
    return count;
};
"#;
    let finished = bench.once(bench.program(python, javascript), "null").await?;
    if Kind::of(&finished.outcome) == Kind::Returned {
        let count = output(&finished)?.as_u64().unwrap_or(u64::MAX);
        ensure!(count < 10_000, "{count} files were held open");
    } else {
        bench.expect(&finished, &[Kind::Raised, Kind::Crashed, Kind::OutOfMemory])?;
    }
    bench.still_serves().await
}

pub(super) async fn eight_instances_run_at_once(bench: Bench) -> Check {
    let program = bench.program(
        "import time\ndef handler(event, context):\n    end = time.monotonic() + 0.05\n    while time.monotonic() < end:\n        pass\n    return event\n",
        "export default (event) => { const end = Date.now() + 50; while (Date.now() < end); return event; };\n",
    );
    let limits = program.limits;
    let loaded = bench.load(program).await.map_err(|error| error.to_string())?;
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let loaded = loaded.clone();
            tokio::spawn(async move {
                let mut running = Running::of(loaded, limits).await?;
                output(&running.call(&number.to_string()).await)
            })
        })
        .collect();
    for (number, task) in tasks.into_iter().enumerate() {
        let said = task.await.map_err(|error| error.to_string())??;
        ensure!(said == number, "instance {number} answered {said}");
    }
    Ok(())
}

pub(super) async fn dropping_an_instance_kills_all_of_it(bench: Bench) -> Check {
    let mark = mark();
    let mut running = bench.start(daemon(&bench, &mark)).await?;
    let finished = running.call("\"leave\"").await;
    if output(&finished)? == "absent" {
        return Ok(());
    }
    if marked_processes(&mark) == 0 && !finished.reusable {
        return Ok(());
    }
    drop(running);
    wait_for_marked(&mark, |count| count == 0, Duration::from_secs(2)).await?;
    bench.still_serves().await
}

pub(super) async fn dropping_a_call_kills_all_of_it(bench: Bench) -> Check {
    let mark = mark();
    let program = daemon(&bench, &mark);
    let limits = program.limits;
    let loaded = bench.load(program).await.map_err(|error| error.to_string())?;
    let mut instance = start(&loaded).await?;
    let begun = Instant::now();
    tokio::select! {
        finished = instance.call(call("\"attack\"", &limits)) => {
            if output(&finished).is_ok_and(|said| said == "absent") {
                return Ok(());
            }
            return Err(format!("it ended by itself: {}", Told(&finished)));
        }
        seen = wait_for_marked(&mark, |count| count > 0, Duration::from_secs(5)) => seen?,
    }
    // The call's future is gone; the instance is not dropped yet.
    wait_for_marked(&mark, |count| count == 0, Duration::from_secs(2)).await?;
    ensure!(
        begun.elapsed() < Duration::from_millis(limits.timeout_ms.into()),
        "only its timeout killed it"
    );
    let after = instance.call(call("\"calm\"", &limits)).await;
    ensure!(
        Kind::of(&after.outcome) != Kind::Returned,
        "a killed instance answered {}",
        Told(&after)
    );
    ensure!(!after.reusable, "a killed instance was called reusable");
    bench.still_serves().await
}

/// A call that sleeps and one that works, both stopped half way: neither is billed for time in which it did nothing.
pub(super) async fn a_stopped_call_tells_what_it_used(bench: Bench) -> Check {
    let program = bench.program(
        "import time\ndef handler(event, context):\n    print('begun', flush=True)\n    while event == 'work':\n        pass\n    time.sleep(3600)\n",
        "export default async (event) => { console.log('begun'); while (event === 'work'); await new Promise((done) => setTimeout(done, 3600000)); };\n",
    );
    const RUNS: Duration = Duration::from_millis(300);
    for event in ["sleep", "work"] {
        let mut running = bench.start(program.clone()).await?;
        let call = call(&format!("\"{event}\""), &program.limits);
        let stop = call.stop.clone();
        let begun = Instant::now();
        let stopping = async {
            tokio::time::sleep(RUNS).await;
            stop.cancel();
        };
        let (finished, ()) = tokio::join!(running.instance.call(call), stopping);
        let took = begun.elapsed();
        bench.expect(&finished, &[Kind::Stopped])?;
        ensure!(took < RUNS + TIMEOUT_SLACK, "it went on for {took:?}");
        ensure!(!finished.reusable, "a stopped instance was to be used again");
        ensure!(
            finished.logs.text.contains("begun"),
            "the logs are lost: {}",
            Told(&finished)
        );
        let cpu = Duration::from_micros(finished.counters.cpu_us);
        let (least, most) = match event {
            "sleep" => (Duration::ZERO, RUNS / 2),
            // The engine's own threads, that compile and collect garbage, work beside it.
            // Beside others it gets little.
            _ => (RUNS / 100, took + RUNS / 2),
        };
        ensure!(
            cpu >= least && cpu <= most,
            "{event} is said to have used {cpu:?} in {took:?}"
        );
        ensure!(finished.counters.memory_byte_ms > 0, "no memory is told");
    }
    bench.still_serves().await
}
