//! The program of the tests' image, static: a server at PORT, or something that is run once.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        None | Some("serve") => serve(),
        Some("copy") => {
            let mut input = Vec::new();
            std::io::stdin().read_to_end(&mut input).expect("input");
            eprintln!("copied {} bytes", input.len());
            std::io::stdout().write_all(&input).expect("output");
        }
        Some("exit") => std::process::exit(arguments[1].parse().expect("a code")),
        Some("look") => look(),
        Some(other) => panic!("{other}"),
    }
}

/// What an attacker would look for.
fn look() {
    let id = std::fs::read_to_string("/proc/self/status").expect("its own");
    let line = |name: &str| {
        id.lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or("")
            .trim()
            .to_owned()
    };
    let written = ["/tmp/a", "/data", "/etc/new", "/bin/new"].map(|path| std::fs::write(path, "x").is_ok());
    let hidden = ["/hidden", "/opaque/old"].map(|path| std::path::Path::new(path).exists());
    let host = ["/etc/shadow", "/.host", "/work", "/root/.ssh"].map(|path| std::path::Path::new(path).exists());
    let raw = TcpStream::connect("10.255.255.1:80")
        .map(drop)
        .map_err(|error| error.kind());
    println!(
        "{{\"uid\":{:?},\"capabilities\":{:?},\"seccomp\":{:?},\"written\":{written:?},\"hidden\":{hidden:?},\"host\":{host:?},\"connected\":{},\"directory\":{:?},\"opaque\":{}}}",
        line("Uid:"),
        line("CapEff:"),
        line("Seccomp:"),
        raw.is_ok(),
        std::env::current_dir().expect("one"),
        std::path::Path::new("/opaque/new").exists(),
    );
}

fn serve() {
    let port: u16 = std::env::var("PORT").expect("PORT").parse().expect("a port");
    let listener = TcpListener::bind(("0.0.0.0", port)).expect("a port of its own");
    println!("listening at {port}");
    for (count, socket) in listener.incoming().enumerate() {
        answer(socket.expect("a connection"), count);
    }
}

fn answer(socket: TcpStream, count: usize) {
    let mut from = BufReader::new(socket.try_clone().expect("a descriptor"));
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        lines.iter().find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix(&format!("{name}: "))
                .map(str::to_owned)
        })
    };
    let mut body = Vec::new();
    if let Some(length) = header("content-length") {
        body.resize(length.parse().expect("a length"), 0);
        from.read_exact(&mut body).expect("the body");
    } else if header("transfer-encoding").is_some() {
        loop {
            let mut size = String::new();
            from.read_line(&mut size).expect("a size");
            let size = usize::from_str_radix(size.trim(), 16).expect("hexadecimal");
            let mut chunk = vec![0; size + 2];
            from.read_exact(&mut chunk).expect("a chunk");
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
    let mut to = socket;
    let path = lines[0].split(' ').nth(1).expect("a path").to_owned();
    match &*path {
        "/exit" => std::process::exit(3),
        "/large" => {
            let _ = to.write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ntransfer-encoding: chunked\r\n\r\n",
            );
            for _ in 0..64 {
                let _ = to.write_all(b"10000\r\n");
                let _ = to.write_all(&[7; 0x10000]);
                let _ = to.write_all(b"\r\n");
            }
            let _ = to.write_all(b"0\r\n\r\n");
        }
        "/missing" => {
            let _ = to.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\ncontent-type: text/plain\r\n\r\nno");
        }
        _ => {
            let said = format!(
                "{{\"line\":{:?},\"body\":{:?},\"bytes\":{},\"count\":{count},\"greeting\":{:?},\"mark\":{:?}}}",
                lines[0],
                String::from_utf8_lossy(&body[..body.len().min(100)]),
                body.len(),
                std::env::var("GREETING").unwrap_or_default(),
                header("x-mark").unwrap_or_default(),
            );
            let _ = write!(
                to,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-answered: yes\r\ncontent-length: {}\r\n\r\n{said}",
                said.len()
            );
        }
    }
}
