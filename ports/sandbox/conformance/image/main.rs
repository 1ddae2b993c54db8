//! The program of the suite's image, static: it does what its input says, once (`obey`, `copy`) or as a server (`serve`).

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("copy") => {
            let mut input = Vec::new();
            std::io::stdin().read_to_end(&mut input).expect("input");
            eprintln!("copied {} bytes", input.len());
            std::io::stdout().write_all(&input).expect("output");
        }
        Some("obey") => {
            let mut order = String::new();
            std::io::stdin().read_to_string(&mut order).expect("an order");
            println!("{}", obey(&order));
        }
        Some("serve") => serve(),
        // With a mark in its command line.
        Some("stay") => std::thread::sleep(Duration::from_secs(3_600)),
        other => panic!("{other:?}"),
    }
}

/// Gives JSON.
fn obey(order: &str) -> String {
    let (verb, rest) = order.split_once(' ').unwrap_or((order, ""));
    match verb {
        "echo" => format!("{rest:?}"),
        "exit" => std::process::exit(rest.parse().expect("a code")),
        "sleep" => std::thread::sleep(Duration::from_secs(3_600)).json(),
        "spin" => loop {
            std::hint::spin_loop();
        },
        "begin" => {
            std::thread::spawn(|| {
                loop {
                    std::hint::spin_loop();
                }
            });
            "\"begun\"".to_owned()
        }
        "hoard" => hoard(),
        "fork" => forks().to_string(),
        "fill" => fill(Path::new(rest)).to_string(),
        "files" => files(Path::new(rest)).to_string(),
        "open" => open_files().to_string(),
        "print" => {
            let line = format!("{}\n", "x".repeat(99));
            for _ in 0..rest.parse::<u64>().expect("a number") / 100 {
                eprint!("{line}");
            }
            "null".to_owned()
        }
        "write" => fs::write(rest, "x").is_ok().to_string(),
        "exists" => Path::new(rest).exists().to_string(),
        "list" => {
            let names = fs::read_dir(rest).into_iter().flatten().flatten();
            let names: Vec<String> = names.map(|entry| format!("{:?}", entry.file_name())).collect();
            format!("[{}]", names.join(","))
        }
        "connect" => TcpStream::connect_timeout(&rest.parse().expect("an address"), Duration::from_secs(1))
            .is_ok()
            .to_string(),
        "leave" => {
            let own = std::env::current_exe().expect("its own path");
            let left = Command::new(own)
                .args(["stay", rest])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn();
            left.is_ok().to_string()
        }
        "look" => look(),
        _ => panic!("no order: {order}"),
    }
}

trait Json {
    fn json(self) -> String;
}

impl Json for () {
    fn json(self) -> String {
        "null".to_owned()
    }
}

fn hoard() -> String {
    let mut all = Vec::new();
    loop {
        all.push(vec![7u8; 4 << 20]);
        std::hint::black_box(&all);
    }
}

fn forks() -> u64 {
    let own = std::env::current_exe().expect("its own path");
    let start = || {
        Command::new(&own)
            .arg("stay")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
    };
    (0..500).take_while(|_| start().is_ok()).count() as u64
}

fn fill(directory: &Path) -> u64 {
    let part = vec![7u8; 1 << 20];
    let mut total = 0;
    for number in 0..8 {
        let Ok(mut file) = fs::File::create(directory.join(format!("fill-{number}"))) else {
            break;
        };
        for _ in 0..64 {
            match file.write(&part) {
                Ok(written) => total += written as u64,
                Err(_) => return total,
            }
        }
    }
    total
}

fn files(directory: &Path) -> u64 {
    let make = |number: &u32| fs::write(directory.join(format!("many-{number}")), "").is_ok();
    (0..50_000).take_while(make).count() as u64
}

fn open_files() -> u64 {
    let mut all = Vec::new();
    while let Ok(file) = fs::File::open("/bin/program") {
        all.push(file);
        if all.len() >= 20_000 {
            break;
        }
    }
    all.len() as u64
}

unsafe extern "C" {
    fn syscall(number: std::ffi::c_long, ...) -> std::ffi::c_long;
}

/// What an attacker would look for, and calls that must be refused.
fn look() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        format!("{:?}", line.unwrap_or("").trim())
    };
    let hosts = [
        "/etc/shadow",
        "/usr",
        "/home",
        "/.host",
        "/sys/class",
        "/dev/vda",
        "/dev/kvm",
        "/proc/1/root/etc",
    ];
    let found: Vec<String> = hosts
        .iter()
        .filter(|path| Path::new(path).exists())
        .map(|path| format!("{path:?}"))
        .collect();
    let got: Vec<String> = dangerous()
        .into_iter()
        .filter(|(_, got)| *got)
        .map(|(name, _)| format!("{name:?}"))
        .collect();
    format!(
        "{{\"uid\":{},\"capabilities\":{},\"found\":[{}],\"got\":[{}]}}",
        field("Uid"),
        field("CapEff"),
        found.join(","),
        got.join(",")
    )
}

#[cfg(target_arch = "x86_64")]
fn dangerous() -> Vec<(&'static str, bool)> {
    // SAFETY: numbers and null alone: each fails, or hurts this process only.
    let call = |number: i64, a: i64, b: i64, c: i64| unsafe { syscall(number, a, b, c, 0, 0, 0) >= 0 };
    vec![
        ("keyctl", call(250, 0, -3, 1)),
        ("unshare", call(272, 0x1000_0000, 0, 0)),
        ("ptrace", call(101, 0, 0, 0)),
        ("bpf", call(321, 0, 0, 0)),
        ("perf_event_open", call(298, 0, 0, 0)),
        ("io_uring_setup", call(425, 1, 0, 0)),
        ("userfaultfd", call(323, 0, 0, 0)),
        ("mount", call(165, 0, 0, 0)),
        ("raw socket", call(41, 2, 3, 1)),
        ("packet socket", call(41, 17, 3, 0)),
        ("netlink", call(41, 16, 3, 0)),
        ("vsock", call(41, 40, 1, 0)),
    ]
}

#[cfg(not(target_arch = "x86_64"))]
fn dangerous() -> Vec<(&'static str, bool)> {
    Vec::new()
}

fn serve() {
    let port: u16 = std::env::var("PORT").expect("PORT").parse().expect("a port");
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("a port of its own");
    for (count, socket) in listener.incoming().enumerate() {
        let _ = answer(socket.expect("a connection"), count);
    }
}

/// The body is an order in quotes, since it came as JSON.
fn answer(mut socket: TcpStream, count: usize) -> std::io::Result<()> {
    let mut from = BufReader::new(socket.try_clone()?);
    let (mut first, mut length) = (String::new(), 0);
    from.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
    }
    if first.is_empty() {
        return Ok(());
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let said = obey(body.trim_matches('"'));
    let said = format!("{{\"line\":{:?},\"count\":{count},\"said\":{said}}}", first.trim());
    write!(
        socket,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{said}",
        said.len()
    )
}
