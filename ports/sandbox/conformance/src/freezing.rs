//! Standing still while the owner's work comes first.

use std::time::{Duration, Instant};

use crate::bench::{Bench, Check, Kind, TIMEOUT_SLACK, Told, call, ensure, output};

/// Works until its own clock says that half a second has passed.
fn half_a_second(bench: &Bench) -> piecework_sandbox::Program {
    bench.program(
        "import time\ndef handler(event, context):\n    end = time.time() + 0.5\n    while time.time() < end:\n        pass\n    return event\n",
        "export default (event) => { const end = Date.now() + 500; while (Date.now() < end); return event; };\n",
    )
}

/// Longer than the program's timeout: it stands still through all of it.
const FROZEN: Duration = Duration::from_secs(3);

pub(super) async fn a_frozen_call_goes_on_later_and_pays_for_none_of_it(bench: Bench) -> Check {
    if !bench.freeze(false) {
        return Ok(());
    }
    let mut program = half_a_second(&bench);
    program.limits.timeout_ms = 2_000;
    let limits = program.limits;
    let mut running = bench.start(program).await?;
    let begun = Instant::now();
    let mut calling = running.instance.call(call("\"thawed\"", &limits));
    let early = tokio::time::timeout(Duration::from_millis(100), &mut calling).await;
    ensure!(early.is_err(), "half a second passed in 100 ms");
    ensure!(bench.freeze(true), "it could be frozen a moment ago");
    let frozen = tokio::time::timeout(FROZEN, &mut calling).await;
    bench.freeze(false);
    ensure!(
        frozen.is_err(),
        "it ended while it was frozen: {}",
        Told(&frozen.expect("ended"))
    );
    let finished = calling.await;
    let took = begun.elapsed();
    ensure!(output(&finished)? == "thawed", "it gave {}", Told(&finished));
    ensure!(
        finished.duration + FROZEN <= took + Duration::from_millis(1),
        "{:?} of {took:?} are billed, {FROZEN:?} of them frozen",
        finished.duration
    );
    let cpu = Duration::from_micros(finished.counters.cpu_us);
    ensure!(
        cpu <= finished.duration + Duration::from_millis(50),
        "it used {cpu:?} in {:?}",
        finished.duration
    );
    Ok(())
}

pub(super) async fn a_frozen_call_can_be_stopped(bench: Bench) -> Check {
    if !bench.freeze(false) {
        return Ok(());
    }
    let program = half_a_second(&bench);
    let limits = program.limits;
    let mut running = bench.start(program).await?;
    let call = call("\"never\"", &limits);
    let stop = call.stop.clone();
    let mut calling = running.instance.call(call);
    let early = tokio::time::timeout(Duration::from_millis(100), &mut calling).await;
    ensure!(early.is_err(), "half a second passed in 100 ms");
    bench.freeze(true);
    stop.cancel();
    let begun = Instant::now();
    let finished = tokio::time::timeout(Duration::from_secs(30), &mut calling).await;
    bench.freeze(false);
    let finished = finished.map_err(|_| "it did not stop while it was frozen".to_owned())?;
    bench.expect(&finished, &[Kind::Stopped])?;
    ensure!(
        begun.elapsed() < TIMEOUT_SLACK * 2,
        "stopping took {:?}",
        begun.elapsed()
    );
    drop(calling);
    bench.still_serves().await
}
