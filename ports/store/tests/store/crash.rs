//! What was acknowledged survives SIGKILL, and is counted once.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use piecework_model::JobId;
use piecework_store::{
    Functions, Job, JobFilter, JobState, Jobs, MetricScope, Metrics, Options, Projected, Put, Sequences, Sqlite, Values,
};

use crate::conformance::{
    metrics::{assert_same, raw_points},
    samples::{accepted, account, finished, function, function_id, lease, version},
};

const DIRECTORY: &str = "PIECEWORK_STORE_CRASH_TEST_DIRECTORY";
const ROUND: &str = "PIECEWORK_STORE_CRASH_TEST_ROUND";
const ROUNDS: u64 = 10;

/// Small segments and short intervals, so that a kill meets every part of the work.
fn options(directory: &Path) -> Options {
    Options {
        segment_bytes: 64 << 10,
        filing_interval: std::time::Duration::from_millis(5),
        ..Options::new(directory)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_sigkill_and_counts_once() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return write_until_killed(Path::new(&directory)).await;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mut printed = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut child = spawn(directory.path(), round);
        let lines = lines_until_killed(&mut child, 200 + round as usize * 331);
        assert!(lines.len() >= 200, "the child wrote only {lines:?}");
        let before = printed.len();
        printed.extend(lines.iter().cloned());
        assert_eq!(printed.len(), before + lines.len(), "printed twice");
        let store = Sqlite::open(options(directory.path())).await.expect("opened");
        check(&store, &printed).await;
    }
}

fn spawn(directory: &Path, round: u64) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args([
            "--exact",
            "crash::what_was_acknowledged_survives_sigkill_and_counts_once",
            "--nocapture",
        ])
        .env(DIRECTORY, directory)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started")
}

/// Whole lines only: what is cut off was not said.
fn lines_until_killed(child: &mut Child, count: usize) -> Vec<String> {
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let (mut lines, mut killed) = (Vec::new(), false);
    let mut line = String::new();
    while output.read_line(&mut line).expect("read") > 0 {
        if let Some(said) = line.strip_suffix('\n').and_then(|line| line.split("kept ").nth(1)) {
            lines.push(said.to_owned());
        }
        line.clear();
        if lines.len() >= count && !killed {
            child.kill().expect("killed");
            killed = true;
        }
    }
    child.wait().expect("waited");
    assert!(killed, "the child ended by itself after {} lines", lines.len());
    lines
}

fn say(kind: &str, what: impl std::fmt::Display) {
    // One write of one line, with what stands before it on a line of its own.
    let line = format!("\nkept {kind} {what}\n");
    let mut output = std::io::stdout().lock();
    output
        .write_all(line.as_bytes())
        .and_then(|()| output.flush())
        .expect("said");
}

async fn write_until_killed(directory: &Path) {
    let round: u64 = std::env::var(ROUND).expect("a round").parse().expect("a number");
    let store = Sqlite::open(options(directory)).await.expect("opened");
    let base = (round + 1) * 10_000_000;
    let tasks = [
        tokio::spawn(finish_jobs(store.clone(), base)),
        tokio::spawn(accept_jobs(store.clone(), base + 1_000_000)),
        tokio::spawn(accept_and_finish_jobs(store.clone(), base + 2_000_000)),
        tokio::spawn(write_others(store.clone(), base + 3_000_000)),
        tokio::spawn(project_blocks(store.clone())),
    ];
    for task in tasks {
        task.await.expect("runs until killed");
    }
}

fn job(number: u64) -> Job {
    let mut job = finished(number, function_id(number % 3), account(1));
    job.created_at_ms = finished(number % 1_000, function_id(0), account(1)).created_at_ms;
    job
}

async fn finish_jobs(store: Arc<Sqlite>, base: u64) {
    for number in base.. {
        let job = job(number);
        let id = job.id;
        store.finish(job).expect("kept");
        say("finished", id);
        tokio::task::yield_now().await;
    }
}

async fn accept_jobs(store: Arc<Sqlite>, base: u64) {
    for number in base.. {
        let job = accepted(number, function_id(number % 3), account(1));
        let id = job.id;
        store.accept(job).await.expect("kept");
        say("accepted", id);
    }
}

async fn accept_and_finish_jobs(store: Arc<Sqlite>, base: u64) {
    for number in base.. {
        let job = job(number);
        let mut order = accepted(number, job.function, account(1));
        order.id = job.id;
        store.accept(order).await.expect("kept");
        store.finish(job.clone()).expect("kept");
        say("finished", job.id);
    }
}

async fn write_others(store: Arc<Sqlite>, base: u64) {
    for number in base.. {
        store
            .reserve_sequences(lease(1), account(2), number)
            .await
            .expect("reserved");
        say("reserved", number);
        let new = function(number, account(9));
        store.create_function(&new, &version(new.id, 1)).await.expect("created");
        say("function", new.id);
    }
}

/// Of each block, so that a kill meets the midst of it.
const LINES: u64 = 300;
const STATEMENT: &str = "statement";

fn line_key(height: u64, line: u64) -> String {
    format!("{height:016x}-{line:08x}")
}

async fn project_blocks(store: Arc<Sqlite>) {
    for height in store.projected_height().await.expect("read") + 1.. {
        let put = |line| Put {
            space: STATEMENT.to_owned(),
            key: line_key(height, line),
            value: vec![b'x'; 200],
        };
        let read = Projected {
            puts: (0..LINES).map(put).collect(),
            ..Projected::at(height)
        };
        store.project(&read).await.expect("written");
        say("projected", height);
    }
}

/// Of every block up to the place in the ledger all lines are there, and of the next one none.
async fn check_blocks(store: &Sqlite) -> u64 {
    let place = store.projected_height().await.expect("read");
    for height in [place.saturating_sub(1).max(1), place, place + 1] {
        let prefix = format!("{height:016x}-");
        let page = store
            .list_values(STATEMENT, &prefix, None, 1_000)
            .await
            .expect("listed");
        let expected = if (1..=place).contains(&height) { LINES } else { 0 };
        assert_eq!(page.items.len() as u64, expected, "block {height}, read up to {place}");
    }
    place
}

async fn check(store: &Sqlite, printed: &BTreeSet<String>) {
    let unfinished: BTreeSet<JobId> = store
        .unfinished()
        .await
        .expect("read")
        .iter()
        .map(|job| job.id)
        .collect();
    let place = check_blocks(store).await;
    for line in printed {
        let (kind, what) = line.split_once(' ').expect("two words");
        match kind {
            "finished" => {
                let id: JobId = what.parse().expect("an id");
                let job = store
                    .job(id)
                    .await
                    .expect("read")
                    .unwrap_or_else(|| panic!("{id} is lost"));
                assert_eq!((job.state, job.logs.is_empty()), (JobState::Succeeded, false));
                assert!(!unfinished.contains(&id), "{id} would run again");
            }
            "accepted" => assert!(unfinished.contains(&what.parse().expect("an id")), "{what} is lost"),
            "reserved" => {
                let reserved: u64 = what.parse().expect("a number");
                assert!(store.sequence_high_water(lease(1), account(2)) >= reserved);
            }
            "function" => {
                let found = store.function(what.parse().expect("an id")).await.expect("read");
                assert!(found.is_some(), "{what} is lost");
            }
            "projected" => assert!(what.parse::<u64>().expect("a height") <= place, "block {what} is lost"),
            other => panic!("nobody says {other}"),
        }
    }
    check_rollups(store).await;
}

/// Every job in the tables is in the rollups, once.
async fn check_rollups(store: &Sqlite) {
    let (mut jobs, mut before) = (Vec::new(), None);
    loop {
        let filter = JobFilter {
            developer: account(1),
            function: None,
            state: None,
            before,
            limit: 1_000,
        };
        let page = store.list_jobs(&filter).await.expect("listed");
        jobs.extend(page.items);
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    jobs.retain(|job| job.state.is_final());
    for step_ms in [60_000, 3_600_000, 86_400_000] {
        let points = store
            .points(MetricScope::System, 0, u64::MAX, step_ms)
            .await
            .expect("read");
        assert_same(&points, &raw_points(&jobs, step_ms));
    }
}
