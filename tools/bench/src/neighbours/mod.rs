//! `./bench neighbours`: what a victim's warm calls take while a neighbour misbehaves, beside what they take alone.
//!
//! The victim and the neighbour have an account each. The victim calls one function in each wall, one call after the other over
//! one connection; the neighbour keeps a number of calls of one attack going. The load generator runs on the same machine, so that
//! a part of what is seen is its own waiting for a core: the floor is a bare loop of system calls in a process beside the server.

mod attacks;
mod floor;

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    http::{Connection, Site},
    load::Latencies,
    report::{Machine, now, write_json, write_table},
    server::Server,
};
use attacks::{ATTACKS, Attack};

#[derive(Clone, Debug, Args)]
pub struct NeighboursOptions {
    /// The binary to measure.
    #[arg(long, default_value = "target/release/piecework")]
    binary: PathBuf,
    /// Seconds of each measurement of each victim.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Only attacks whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Writes the table into this file, between its marks.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Where the raw numbers go.
    #[arg(long, default_value = "bench-results")]
    results: PathBuf,
}

const WALLS: [&str; 2] = ["jail", "wasm"];
/// What a neighbour's calls need before they are in full swing.
const SWING: Duration = Duration::from_millis(1_500);
/// And to end, before the next one begins.
const CALM: Duration = Duration::from_secs(2);
/// The neighbour's calls end by this and begin again.
const ATTACK_TIMEOUT_MS: u32 = 9_000;
const VICTIM: &str = "def handler(event, context):\n    return event + 1\n";
/// Where the table lies.
const BEGIN: &str = "<!-- ./bench neighbours writes this table -->";
const GRANT_UCR: u64 = 500_000_000;

/// What a victim in one wall saw.
#[derive(Clone, Debug, Serialize)]
struct Seen {
    p50_us: f64,
    p99_us: f64,
    calls: usize,
    failed: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    attack: &'static str,
    wall: &'static str,
    /// By the victim's wall, as in [`WALLS`].
    victims: Vec<Seen>,
    /// Of a loop beside the server that does nothing but wait and wake: p99, microseconds.
    floor_us: f64,
}

#[derive(Clone, Debug, Serialize)]
struct Figures {
    began_at: u64,
    machine: Machine,
    solo: Row,
    rows: Vec<Row>,
}

/// Somebody with an account, and functions of their own.
struct Tenant {
    site: Site,
    token: String,
}

impl Tenant {
    fn new(server: &Server, name: &str) -> Result<Self> {
        const PASSWORD: &str = "correct horse battery staple";
        let mut connection = server.connect()?;
        let invite = json!({"expires_in_s": 3_600, "grant_ucr": GRANT_UCR});
        let invite = connection.json(&server.request("POST", "/invites", Some(&invite)))?;
        let site = server.site.clone();
        let mut ask = |path, body: Value| connection.json(&site.request("POST", path, None, Some(&body.to_string())));
        ask(
            "/accounts",
            json!({"name": name, "password": PASSWORD, "invite": invite["code"]}),
        )?;
        let session = ask("/sessions", json!({"name": name, "password": PASSWORD}))?;
        let token = session["token"].as_str().context("a session has a token")?.to_owned();
        Ok(Self { site, token })
    }

    fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Vec<u8> {
        let body = body.map(Value::to_string);
        self.site.request(method, path, Some(&self.token), body.as_deref())
    }

    fn deploy(&self, name: &str, code: (&str, &str), wall: &str, more: Value) -> Result<()> {
        let (language, code) = code;
        let mut body = json!({"name": name, "language": language, "code": code, "sandbox": wall});
        if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
            body.extend(more.clone());
        }
        let request = self.request("POST", "/functions", Some(&body));
        Connection::open(&self.site)?
            .json(&request)
            .with_context(|| format!("deploy {name}"))
            .map(drop)
    }

    fn call(&self, name: &str) -> Vec<u8> {
        self.request("POST", &format!("/execute/{name}"), Some(&json!({"input": 1})))
    }

    fn delete(&self, name: &str) -> Result<()> {
        Connection::open(&self.site)?
            .send(&self.request("DELETE", &format!("/functions/{name}"), None))
            .map(drop)
    }
}

/// A neighbour's calls, until it is dropped.
struct Noise {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Noise {
    fn begin(neighbour: &Tenant, name: &str, calls: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..calls).map(|_| {
            let (stop, site, request) = (stop.clone(), neighbour.site.clone(), neighbour.call(name));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let sent = Connection::open(&site).and_then(|mut connection| connection.send(&request));
                    if sent.is_err() {
                        thread::sleep(Duration::from_millis(50));
                    }
                }
            })
        });
        Self {
            threads: threads.collect(),
            stop,
        }
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that panicked has nothing to say that matters here.
            let _ = thread.join();
        }
    }
}

fn watch(victim: &Tenant, name: &str, seconds: f64) -> Seen {
    let (request, until) = (victim.call(name), Instant::now() + Duration::from_secs_f64(seconds));
    let (mut times, mut failed) = (Vec::new(), 0);
    let mut connection = Connection::open(&victim.site);
    while Instant::now() < until {
        let began = Instant::now();
        let answer = match &mut connection {
            Ok(connection) => connection.send(&request),
            Err(_) => Err(anyhow::anyhow!("not connected")),
        };
        match answer {
            Ok((answer, _)) if answer.is_success() => times.push(began.elapsed()),
            Ok(_) => failed += 1,
            Err(_) => {
                failed += 1;
                connection = Connection::open(&victim.site);
            }
        }
    }
    let seen = Latencies::of(times);
    Seen {
        p50_us: seen.us(0.5),
        p99_us: seen.us(0.99),
        calls: seen.count(),
        failed,
    }
}

fn row(victim: &Tenant, (attack, wall): (&'static str, &'static str), seconds: f64) -> Row {
    let victims = WALLS.iter().map(|at| watch(victim, &victim_in(at), seconds));
    Row {
        attack,
        wall,
        victims: victims.collect(),
        floor_us: floor::p99_us(Duration::from_secs_f64(seconds / 2.0)),
    }
}

fn victim_in(wall: &str) -> String {
    format!("victim-{wall}")
}

pub fn measure(options: &NeighboursOptions) -> Result<()> {
    let mut server = Server::start(&options.binary)?;
    let (victim, neighbour) = (Tenant::new(&server, "victim")?, Tenant::new(&server, "neighbour")?);
    for wall in WALLS {
        victim.deploy(&victim_in(wall), ("python", VICTIM), wall, json!({}))?;
        watch(&victim, &victim_in(wall), 0.5);
    }
    let solo = row(&victim, ("alone", "-"), options.seconds);
    ensure!(
        solo.victims.iter().all(|seen| seen.failed == 0),
        "calls fail with nobody beside them"
    );
    let mut figures = Figures {
        began_at: now(),
        machine: Machine::read(),
        solo,
        rows: Vec::new(),
    };
    for attack in ATTACKS.iter().filter(|attack| attack.name.contains(&options.only)) {
        for (wall, code) in attack.code() {
            eprintln!("{} in {wall}", attack.name);
            figures
                .rows
                .push(beside(&victim, &neighbour, attack, (wall, code), options.seconds)?);
        }
    }
    server.stop()?;
    println!("{figures}");
    if let Some(file) = &options.table {
        write_table(file, BEGIN, &figures.to_string())?;
    }
    println!(
        "raw: {}",
        write_json(&options.results, "neighbours", &figures)?.display()
    );
    Ok(())
}

fn beside(
    victim: &Tenant,
    neighbour: &Tenant,
    attack: &Attack,
    (wall, code): (&'static str, (&'static str, &'static str)),
    seconds: f64,
) -> Result<Row> {
    let limits = json!({"timeout_ms": ATTACK_TIMEOUT_MS, "memory_limit_mb": 128, "concurrency": 100});
    neighbour.deploy("noise", code, wall, limits)?;
    let noise = Noise::begin(neighbour, "noise", attack.calls);
    thread::sleep(SWING);
    let row = row(victim, (attack.name, wall), seconds);
    neighbour.delete("noise")?;
    drop(noise);
    thread::sleep(CALM);
    Ok(row)
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        writeln!(
            f,
            "| neighbour | its wall | victim in a jail: p50, p99 | | victim in wasm: p50, p99 | | floor: p99 |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        for row in std::iter::once(&self.solo).chain(&self.rows) {
            write!(f, "| {} | {} |", row.attack, row.wall)?;
            for (seen, solo) in row.victims.iter().zip(&self.solo.victims) {
                let failed = match seen.failed {
                    0 => String::new(),
                    failed => format!(", {failed} failed"),
                };
                let (p50, p99) = (seen.p50_us / 1e3, seen.p99_us / 1e3);
                write!(
                    f,
                    " {p50:.2} ms, {p99:.2} ms{failed} | {:.1} x |",
                    seen.p99_us / solo.p99_us
                )?;
            }
            writeln!(f, " {:.2} ms |", row.floor_us / 1e3)?;
        }
        Ok(())
    }
}
