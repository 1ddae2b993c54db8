//! Measures what keeping jobs costs: `cargo run --release -p piecework-store --example load -- [JOBS_PER_S] [SECONDS] [FUNCTIONS]`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use piecework_store::{Functions, Job, Jobs, Options, Payment, Projected, Sqlite};
use samples::{accepted, account, finished, function, function_id, version};

#[path = "../tests/store/conformance/samples.rs"]
#[allow(dead_code)]
mod samples;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let argument = |index: usize, default: u64| {
        std::env::args()
            .nth(index)
            .map_or(default, |text| text.parse().expect("a number"))
    };
    let (rate, seconds, functions) = (argument(1, 10_000), argument(2, 10), argument(3, 50));
    let directory = tempfile::tempdir_in(".").expect("a directory");
    let store = Sqlite::open(Options::new(directory.path())).await.expect("opened");
    let jobs = finish(&store, rate, seconds, functions).await;
    pay(&store, &jobs).await;
    accept(&store).await;
    deploy(&store).await;
}

/// CPU time of this process so far; the kernel counts in hundredths of a second.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().expect("user") + fields[12].parse::<u64>().expect("system");
    Duration::from_millis(ticks * 10)
}

fn print(what: &str, count: u64, (cpu, wall): (Duration, Duration), mut latencies: Vec<Duration>) {
    latencies.sort_unstable();
    let at = |per_mille: usize| latencies[(latencies.len() * per_mille / 1_000).min(latencies.len() - 1)];
    println!(
        "{what}: {count} in {wall:.2?} ({:.0}/s), {:.2} us CPU each, latency p50 {:.1?} p99 {:.1?} max {:.1?}",
        count as f64 / wall.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / count as f64,
        at(500),
        at(990),
        at(1_000),
    );
}

/// At a steady rate, in bursts of a millisecond.
async fn finish(store: &Sqlite, rate: u64, seconds: u64, functions: u64) -> Vec<Job> {
    let count = rate * seconds;
    let job = |number: u64| {
        let mut job = finished(1_000_000 + number, function_id(number % functions), account(number % 7));
        job.created_at_ms = 1_800_000_000_000 + number * 1_000 / rate;
        job
    };
    let jobs: Vec<Job> = (0..count).map(job).collect();
    let copies = jobs.clone();
    let (began, cpu_before) = (Instant::now(), cpu());
    let mut latencies = Vec::with_capacity(count as usize);
    for (number, job) in copies.into_iter().enumerate() {
        let due = began + Duration::from_micros(number as u64 * 1_000_000 / rate / 1_000 * 1_000);
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
        }
        let before = Instant::now();
        store.finish(job).expect("kept");
        latencies.push(before.elapsed());
    }
    let lag = store.lag();
    store.flush().await.expect("filed");
    print("finish", count, (cpu() - cpu_before, began.elapsed()), latencies);
    println!("at the end {lag:?}");
    jobs
}

async fn pay(store: &Sqlite, jobs: &[Job]) {
    let (began, cpu_before) = (Instant::now(), cpu());
    let mut latencies = Vec::new();
    for (height, block) in jobs.chunks(1_000).enumerate() {
        let payment = |job: &Job| Payment {
            job: job.id,
            height: height as u64,
            commission_ucr: 1,
        };
        let read = Projected {
            payments: block.iter().map(payment).collect(),
            ..Projected::at(height as u64)
        };
        let before = Instant::now();
        store.project(&read).await.expect("written");
        latencies.push(before.elapsed());
    }
    print(
        "project (latency of 1000 payments)",
        jobs.len() as u64,
        (cpu() - cpu_before, began.elapsed()),
        latencies,
    );
}

async fn accept(store: &Arc<Sqlite>) {
    let (began, cpu_before) = (Instant::now(), cpu());
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                for number in 0..200 {
                    let order = accepted(900_000_000 + task * 1_000 + number, function_id(1), account(1));
                    let before = Instant::now();
                    store.accept(order).await.expect("kept");
                    latencies.push(before.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("ran"));
    }
    print(
        "accept (64 at a time)",
        latencies.len() as u64,
        (cpu() - cpu_before, began.elapsed()),
        latencies,
    );
}

async fn deploy(store: &Sqlite) {
    let count = 2_000;
    let (began, cpu_before) = (Instant::now(), cpu());
    let mut latencies = Vec::new();
    for number in 0..count {
        let new = function(number, account(1));
        let before = Instant::now();
        store.create_function(&new, &version(new.id, 1)).await.expect("created");
        latencies.push(before.elapsed());
    }
    print(
        "create_function",
        count,
        (cpu() - cpu_before, began.elapsed()),
        latencies,
    );
    let (began, cpu_before) = (Instant::now(), cpu());
    let mut latencies = Vec::new();
    for number in 0..count {
        let before = Instant::now();
        assert!(store.function(function_id(number)).await.expect("read").is_some());
        latencies.push(before.elapsed());
    }
    print("function", count, (cpu() - cpu_before, began.elapsed()), latencies);
}
