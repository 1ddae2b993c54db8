//! `./bench first`: what somebody meets in the first hour: two commands until a function answers, the start of `up`, what adapters of
//! other people's contracts add to a plain handler, and the first byte of a stream.

use std::{
    fmt, fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::{
    http::Site,
    load::{self, Latencies},
    report::{Machine, now, write_json},
    server::Server,
};

#[derive(Clone, Debug, Args)]
pub struct FirstOptions {
    /// The binary to measure.
    #[arg(long, default_value = "target/release/piecework")]
    binary: PathBuf,
    /// Times of each start and each pair of commands.
    #[arg(long, default_value_t = 10)]
    times: usize,
    /// Warm calls of each function in each round; all functions take turns in each of five rounds.
    #[arg(long, default_value_t = 400)]
    calls: usize,
    /// Where the raw numbers go.
    #[arg(long, default_value = "bench-results")]
    results: PathBuf,
}

const ROUNDS: usize = 5;
const WARM_UP: usize = 50;

/// A plain handler and what other contracts make of the same answer, all in the jail: that is where adapters run.
struct Contender {
    name: &'static str,
    language: &'static str,
    /// What it is compared with; itself for a plain one.
    beside: &'static str,
    handler: &'static str,
    code: &'static str,
}

const CONTENDERS: [Contender; 7] = [
    Contender {
        name: "plain-python",
        language: "python",
        beside: "plain-python",
        handler: "main.py",
        code: "def handler(event, context):\n    return {'hello': 'world'}\n",
    },
    Contender {
        name: "wsgi",
        language: "python",
        beside: "plain-python",
        handler: "main.py:app@wsgi",
        code: "def app(environ, start_response):\n    start_response('200 OK', [('content-type', 'application/json')])\n    return [b'{\"hello\": \"world\"}']\n",
    },
    Contender {
        name: "asgi",
        language: "python",
        beside: "plain-python",
        handler: "main.py:app@asgi",
        code: "async def app(scope, receive, send):\n    if scope['type'] != 'http':\n        raise NotImplementedError\n    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-type', b'application/json')]})\n    await send({'type': 'http.response.body', 'body': b'{\"hello\": \"world\"}'})\n",
    },
    Contender {
        name: "plain-javascript",
        language: "javascript",
        beside: "plain-javascript",
        handler: "main.mjs",
        code: "export default () => ({ hello: 'world' });\n",
    },
    Contender {
        name: "fetch",
        language: "javascript",
        beside: "plain-javascript",
        handler: "main.mjs:default@fetch",
        code: "export default { fetch: () => Response.json({ hello: 'world' }) };\n",
    },
    Contender {
        name: "node",
        language: "javascript",
        beside: "plain-javascript",
        handler: "main.mjs:default@node",
        code: "export default (req, res) => {\n  res.setHeader('content-type', 'application/json');\n  res.end('{\"hello\":\"world\"}');\n};\n",
    },
    Contender {
        name: "lambda",
        language: "javascript",
        beside: "plain-javascript",
        handler: "main.mjs:handler@lambda",
        code: "export const handler = async (event, context) => ({ statusCode: 200, headers: { 'content-type': 'application/json' }, body: '{\"hello\":\"world\"}' });\n",
    },
];

/// Its first piece is there at once, and its last one much later.
const STREAM: &str = "export default async function* () {\n  yield 'first';\n  await new Promise((done) => setTimeout(done, 5));\n  yield 'last';\n}\n";
/// How its body ends.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";
/// The same piece as a whole answer.
const WHOLE: &str = "export default () => ({ status: 200, headers: {}, body: 'first' });\n";

/// One figure beside what it is to be compared with.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    p50_us: f64,
    p95_us: f64,
    floor: &'static str,
    floor_p50_us: f64,
    /// Of what is above the floor, or of the whole where that is said.
    aim: &'static str,
}

#[derive(Debug, Serialize)]
struct First {
    began_at: u64,
    machine: Machine,
    rows: Vec<Row>,
}

pub fn measure(options: &FirstOptions) -> Result<()> {
    let mut first = First {
        began_at: now(),
        machine: Machine::read(),
        rows: Vec::new(),
    };
    // The first start may compile the interpreters into the cache.
    Server::start(&options.binary)?.stop()?;
    first.rows.push(starts(options)?);
    let mut server = Server::start(&options.binary)?;
    first.rows.push(commands(&server, options)?);
    first.rows.extend(adapters(&server, options)?);
    first.rows.push(stream(&server, options)?);
    server.stop()?;
    println!("{first}");
    println!("raw: {}", write_json(&options.results, "first", &first)?.display());
    Ok(())
}

/// From the start of the process to its `ready`, on a new directory.
fn starts(options: &FirstOptions) -> Result<Row> {
    let mut times = Vec::new();
    for _ in 0..options.times {
        let began = Instant::now();
        let mut server = Server::start(&options.binary)?;
        times.push(began.elapsed());
        server.stop()?;
    }
    let times = Latencies::of(times);
    Ok(Row {
        name: "up, until ready".into(),
        p50_us: times.us(0.5),
        p95_us: times.us(0.95),
        floor: "-",
        floor_p50_us: 0.0,
        aim: "1 s in all",
    })
}

/// `deploy` and `call` as processes, beside a command that does nothing, twice.
fn commands(server: &Server, options: &FirstOptions) -> Result<Row> {
    let home = tempfile::tempdir().context("make a home")?;
    let file = home.path().join("main.mjs");
    let (mut times, mut floors) = (Vec::new(), Vec::new());
    for number in 0..options.times {
        let code = format!("export default (event) => [{number}, event];\n");
        fs::write(&file, code).context("write a function")?;
        let name = format!("cli-{number}");
        let began = Instant::now();
        run(server, options, home.path(), &["deploy", "main.mjs", "--name", &name])?;
        run(server, options, home.path(), &["call", &name, "1"])?;
        times.push(began.elapsed());
        let began = Instant::now();
        for _ in 0..2 {
            run(server, options, home.path(), &["--version"])?;
        }
        floors.push(began.elapsed());
    }
    let (times, floors) = (Latencies::of(times), Latencies::of(floors));
    Ok(Row {
        name: "deploy and call, two commands".into(),
        p50_us: times.us(0.5),
        p95_us: times.us(0.95),
        floor: "two that do nothing",
        floor_p50_us: floors.us(0.5),
        aim: "50 ms in all",
    })
}

fn run(server: &Server, options: &FirstOptions, home: &Path, arguments: &[&str]) -> Result<()> {
    let binary = options.binary.canonicalize().context("find the binary")?;
    let output = Command::new(binary)
        .args(arguments)
        .env("PIECEWORK_URL", &server.url)
        .env("PIECEWORK_TOKEN", &server.token)
        .env("HOME", home)
        .current_dir(home)
        .stdin(Stdio::null())
        .output()
        .context("run the command line")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{arguments:?}: {said}");
    Ok(())
}

/// Where it answers.
fn deployed(server: &Server, (name, language): (&str, &str), handler: &str, code: &str) -> Result<Vec<u8>> {
    let body = json!({"name": name, "language": language, "handler": handler, "code": code, "sandbox": "jail", "public": true});
    let request = server.request("POST", "/functions", Some(&body));
    let view = server
        .connect()?
        .json(&request)
        .with_context(|| format!("deploy {name}"))?;
    let url = view["url"].as_str().context("a deployment has a URL")?;
    Ok(server.site.request("GET", &Site::parse(url)?.path, None, None))
}

fn adapters(server: &Server, options: &FirstOptions) -> Result<Vec<Row>> {
    let mut all = Vec::new();
    for contender in &CONTENDERS {
        let whose = (contender.name, contender.language);
        let request = deployed(server, whose, contender.handler, contender.code)?;
        all.push((contender, request, Vec::new()));
    }
    for round in 0..=ROUNDS {
        for (contender, request, times) in &mut all {
            let calls = if round == 0 { WARM_UP } else { options.calls };
            let took =
                load::in_turn(&server.site, request, calls).with_context(|| format!("call {}", contender.name))?;
            if round > 0 {
                times.extend(took);
            }
        }
    }
    let middles: Vec<(&Contender, Latencies)> = all
        .into_iter()
        .map(|(contender, _, times)| (contender, Latencies::of(times)))
        .collect();
    let plain = |name: &str| {
        let found = middles.iter().find(|(contender, _)| contender.name == name);
        found.map_or(0.0, |(_, times)| times.us(0.5))
    };
    let adapted = middles
        .iter()
        .filter(|(contender, _)| contender.name != contender.beside);
    Ok(adapted
        .map(|(contender, times)| Row {
            name: format!("warm call, {}", contender.name),
            p50_us: times.us(0.5),
            p95_us: times.us(0.95),
            floor: contender.beside,
            floor_p50_us: plain(contender.beside),
            aim: "50 us above",
        })
        .collect())
}

/// The first byte of a body that goes on later, beside the whole of one that is as long as its first piece.
fn stream(server: &Server, options: &FirstOptions) -> Result<Row> {
    let streamed = deployed(server, ("stream", "javascript"), "main.mjs", STREAM)?;
    let whole = deployed(server, ("whole", "javascript"), "main.mjs", WHOLE)?;
    let (mut firsts, mut wholes) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let calls = if round == 0 { WARM_UP } else { options.calls / ROUNDS };
        let first = (0..calls)
            .map(|_| first_byte(&server.site, &streamed, LAST_CHUNK))
            .collect::<Result<Vec<_>>>()?;
        let all = (0..calls)
            .map(|_| first_byte(&server.site, &whole, b"first"))
            .collect::<Result<Vec<_>>>()?;
        if round > 0 {
            firsts.extend(first);
            wholes.extend(all);
        }
    }
    let (firsts, wholes) = (Latencies::of(firsts), Latencies::of(wholes));
    Ok(Row {
        name: "first byte of a stream".into(),
        p50_us: firsts.us(0.5),
        p95_us: firsts.us(0.95),
        floor: "that of a whole answer",
        floor_p50_us: wholes.us(0.5),
        aim: "1 ms above",
    })
}

/// From the request to the first byte of the body, on a connection of its own that is there before. Read to its end: the instance of a
/// stream that its client leaves is not used again.
fn first_byte(site: &Site, request: &[u8], end: &[u8]) -> Result<Duration> {
    let mut connection = TcpStream::connect(site.address).context("connect")?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(Duration::from_secs(60)))?;
    let began = Instant::now();
    connection.write_all(request).context("send a request")?;
    let (mut seen, mut buffer) = (Vec::new(), [0; 4_096]);
    let mut first: Option<Duration> = None;
    loop {
        let got = connection.read(&mut buffer).context("read an answer")?;
        ensure!(got > 0, "the server closed the connection");
        seen.extend_from_slice(&buffer[..got]);
        if first.is_none() && has(&seen, b"first") {
            first = Some(began.elapsed());
        }
        if let Some(first) = first
            && has(&seen, end)
        {
            return Ok(first);
        }
        ensure!(!seen.starts_with(b"HTTP/1.1 5"), "{}", String::from_utf8_lossy(&seen));
    }
}

fn has(seen: &[u8], text: &[u8]) -> bool {
    seen.windows(text.len()).any(|window| window == text)
}

impl fmt::Display for First {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        writeln!(
            f,
            "| | p50 | p95 | beside it, p50 | above it | aim |\n|---|---|---|---|---|---|"
        )?;
        let time = |us: f64| match us {
            us if us < 10_000.0 => format!("{us:.0} us"),
            us => format!("{:.1} ms", us / 1_000.0),
        };
        for row in &self.rows {
            let beside = match row.floor_p50_us > 0.0 {
                true => format!("{}: {}", row.floor, time(row.floor_p50_us)),
                false => "-".to_owned(),
            };
            let above = time((row.p50_us - row.floor_p50_us).max(0.0));
            let (p50, p95) = (time(row.p50_us), time(row.p95_us));
            writeln!(f, "| {} | {p50} | {p95} | {beside} | {above} | {} |", row.name, row.aim)?;
        }
        Ok(())
    }
}
