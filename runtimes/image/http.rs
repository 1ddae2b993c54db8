//! A call as a request to the program at its port, and its answer back.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{
    Call, Runner,
    channel::CHUNK_BYTES_MAX,
    json::{self, Json},
};

/// Of a status line or a header.
const LINE_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 256;
/// An answer to a request that is this short goes on in one piece.
const WHOLE_BYTES_MAX: usize = 256 << 10;
/// What is shown of an answer that says that it failed.
const SHOWN_BYTES_MAX: usize = 1 << 10;

/// They are of one connection, and these connections are not the client's.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

/// How a request could not be answered.
pub enum Fault {
    /// The program's.
    Program(String),
    /// The agent is gone.
    Channel(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Channel(error)
    }
}

/// What the request is to carry.
struct Request {
    head: Vec<u8>,
    body: Vec<u8>,
    /// The rest of the body is asked for.
    streams: bool,
    is_chunked: bool,
    is_head: bool,
    /// Whether an HTTP client waits for the answer, and not somebody who called with JSON.
    is_http: bool,
}

pub fn is_http(event: &Json) -> bool {
    let has_path = event.get("path").is_some() || event.get("raw_path").is_some();
    event.get("method").and_then(Json::text).is_some() && has_path
}

/// The bytes of an event's body.
pub fn body_of(event: &Json) -> Option<Vec<u8>> {
    if let Some(encoded) = event.get("body_base64").and_then(Json::text) {
        return json::from_base64(encoded);
    }
    match event
        .get("raw_body")
        .filter(|body| **body != Json::Null)
        .or(event.get("body"))
    {
        None | Some(Json::Null) => Some(Vec::new()),
        Some(Json::Text(text)) => Some(text.clone().into_bytes()),
        Some(_) => None,
    }
}

/// One character is one byte, where it can be.
fn bytes_of(text: &str) -> Vec<u8> {
    match text.chars().all(|c| (c as u32) < 256) {
        true => text.chars().map(|c| c as u32 as u8).collect(),
        false => text.as_bytes().to_vec(),
    }
}

fn is_plain(bytes: &[u8]) -> bool {
    !bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
}

fn is_token(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

fn request(call: &Call) -> Result<Request, String> {
    let event = &call.event;
    let is_http = is_http(event);
    if !is_http {
        let body = call.event_text.clone();
        let head = format!(
            "POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        return Ok(Request {
            head: head.into_bytes(),
            body,
            streams: false,
            is_chunked: false,
            is_head: false,
            is_http,
        });
    }
    let text = |name| event.get(name).and_then(Json::text);
    let method = text("method").unwrap_or("GET");
    let path = text("raw_path").or(text("path")).unwrap_or("/");
    let query = text("raw_query").unwrap_or("");
    let mut target = bytes_of(path);
    if !query.is_empty() {
        target.push(b'?');
        target.extend(bytes_of(query));
    }
    if !is_token(method) || !target.starts_with(b"/") || target.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
        return Err("the event's method or path is not valid HTTP".into());
    }
    let body = match call.has_body {
        true => Vec::new(),
        false => {
            body_of(event).unwrap_or_else(|| event.get("body").map(|_| call.body_text.clone()).unwrap_or_default())
        }
    };
    let mut head = format!("{method} ").into_bytes();
    head.extend(target);
    head.extend(b" HTTP/1.1\r\nconnection: close\r\n");
    let is_chunked = headers(&mut head, call, body.len())?;
    if let Some(base) = text("base_path").filter(|base| !base.is_empty() && is_plain(base.as_bytes())) {
        head.extend(format!("x-forwarded-prefix: {base}\r\n").into_bytes());
    }
    if is_chunked {
        head.extend(b"transfer-encoding: chunked\r\n");
    }
    head.extend(b"\r\n");
    Ok(Request {
        head,
        body,
        streams: call.has_body,
        is_chunked,
        is_head: method == "HEAD",
        is_http,
    })
}

/// The event's own headers; whether the body has no length that is known.
fn headers(head: &mut Vec<u8>, call: &Call, body_bytes: usize) -> Result<bool, String> {
    let event = &call.event;
    let listed: Vec<(&str, &str)> = match event.get("header_list") {
        Some(list) => list
            .list()
            .iter()
            .filter_map(|pair| match pair.list() {
                [name, value] => Some((name.text()?, value.text()?)),
                _ => None,
            })
            .collect(),
        None => {
            let fields = event.get("headers").map(Json::fields).unwrap_or_default();
            fields
                .iter()
                .filter_map(|(name, value)| Some((&**name, value.text()?)))
                .collect()
        }
    };
    let (mut has_host, mut length) = (false, None);
    for (name, value) in listed {
        let (lower, value) = (name.to_ascii_lowercase(), bytes_of(value));
        if !is_token(name) || !is_plain(&value) {
            return Err(format!("`{name}` is not a header of HTTP"));
        }
        if lower == "content-length" {
            length = std::str::from_utf8(&value)
                .ok()
                .and_then(|digits| digits.parse::<u64>().ok());
        }
        if lower == "content-length" || HOP_BY_HOP.contains(&&*lower) {
            continue;
        }
        has_host |= lower == "host";
        head.extend(lower.into_bytes());
        head.extend(b": ");
        head.extend(value);
        head.extend(b"\r\n");
    }
    if !has_host {
        head.extend(b"host: localhost\r\n");
    }
    let known = match call.has_body {
        true => length,
        false => Some(body_bytes as u64),
    };
    match known {
        Some(0) if length.is_none() => Ok(false),
        Some(length) => {
            head.extend(format!("content-length: {length}\r\n").into_bytes());
            Ok(false)
        }
        None => Ok(true),
    }
}

/// Whether somebody accepts connections at the port.
pub fn answers(port: u16) -> bool {
    TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok()
}

/// Passes one call on. What is said on the channel is all but the fault.
pub fn serve(runner: &Runner, port: u16, call: &Call) -> Result<(), Fault> {
    let request = request(call).map_err(Fault::Program)?;
    let broken = |what: &'static str| move |error: io::Error| Fault::Program(format!("{what}: {error}"));
    let socket = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .map_err(broken("the image accepts no connection at its port"))?;
    let _ = socket.set_nodelay(true);
    let sending = socket.try_clone().map_err(broken("no more descriptors"))?;
    let left = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sends = scope.spawn(|| send(runner, call, &request, sending, &left));
        let answered = receive(
            runner,
            call,
            &request,
            BufReader::with_capacity(CHUNK_BYTES_MAX, &socket),
        );
        // It may wait for a part of the body, or for the program to take one.
        {
            let mut writer = runner.channel.writer();
            left.store(true, Ordering::Release);
            if request.streams && !sends.is_finished() {
                writer.say(&call.secret, b'Q', &[])?;
            }
        }
        let _ = socket.shutdown(Shutdown::Both);
        let _ = sends.join();
        let (kind, payload) = answered?;
        runner.channel.say(&call.secret, kind, &payload)?;
        Ok(())
    })
}

/// Head and body; a program that does not want the body is none that failed.
fn send(runner: &Runner, call: &Call, request: &Request, mut socket: TcpStream, left: &AtomicBool) -> io::Result<()> {
    let mut first = request.head.clone();
    first.extend_from_slice(&request.body);
    socket.write_all(&first)?;
    if !request.streams {
        return Ok(());
    }
    loop {
        {
            let mut writer = runner.channel.writer();
            if left.load(Ordering::Acquire) {
                return Ok(());
            }
            writer.say(&call.secret, b'B', &[])?;
        }
        let frame = runner.channel.read()?;
        if frame.kind != b'b' {
            break;
        }
        if request.is_chunked {
            socket.write_all(format!("{:x}\r\n", frame.payload.len()).as_bytes())?;
        }
        socket.write_all(&frame.payload)?;
        if request.is_chunked {
            socket.write_all(b"\r\n")?;
        }
    }
    if request.is_chunked {
        socket.write_all(b"0\r\n\r\n")?;
    }
    Ok(())
}

struct Head {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
}

impl Head {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.headers
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| &**value)
    }

    /// As JSON pairs, without what is of the connection alone.
    fn listed(&self, keep_length: bool) -> String {
        let kept = |name: &str| !HOP_BY_HOP.contains(&name) && (keep_length || name != "content-length");
        let pairs = self.headers.iter().filter(|(name, _)| kept(name)).map(|(name, value)| {
            let text = match std::str::from_utf8(value) {
                Ok(text) => text.to_owned(),
                Err(_) => value.iter().map(|byte| char::from(*byte)).collect(),
            };
            format!("[{},{}]", json::quoted(name), json::quoted(&text))
        });
        format!("[{}]", pairs.collect::<Vec<_>>().join(","))
    }
}

fn program(what: &str) -> Fault {
    Fault::Program(what.to_owned())
}

fn line(from: &mut impl BufRead) -> Result<Vec<u8>, Fault> {
    let mut line = Vec::new();
    let got = from.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line);
    got.map_err(|error| Fault::Program(format!("the image's answer broke off: {error}")))?;
    if line.pop() != Some(b'\n') {
        return Err(program(
            "the image's answer is not valid HTTP, or broke off in its head",
        ));
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(line)
}

fn head(from: &mut impl BufRead) -> Result<Head, Fault> {
    loop {
        let first = String::from_utf8_lossy(&line(from)?).into_owned();
        let status = first
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5)?.parse::<u16>().ok());
        let Some(status) = status.filter(|status| (100..600).contains(status)) else {
            return Err(program("the image's answer is not valid HTTP"));
        };
        let mut headers = Vec::new();
        loop {
            let line = line(from)?;
            if line.is_empty() {
                break;
            }
            let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                return Err(program("a header of the image's answer has no colon"));
            };
            let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
            headers.push((name, line[colon + 1..].trim_ascii().to_vec()));
            if headers.len() > HEADERS_MAX {
                return Err(program("the image's answer has too many headers"));
            }
        }
        match status {
            101 => return Err(program("the image changed to another protocol, which is not passed on")),
            // Interim answers.
            100..200 => {}
            _ => return Ok(Head { status, headers }),
        }
    }
}

/// What is left of an answer's body.
enum Rest {
    Known(u64),
    Chunked,
    UntilTheEnd,
    Nothing,
}

impl Rest {
    fn of(head: &Head, is_head: bool) -> Result<Self, Fault> {
        if is_head || matches!(head.status, 204 | 304) {
            return Ok(Rest::Nothing);
        }
        let coding = head.get("transfer-encoding").map(|coding| coding.to_ascii_lowercase());
        match (coding.as_deref(), head.get("content-length")) {
            (Some(b"chunked"), _) => Ok(Rest::Chunked),
            (Some(_), _) => Err(program(
                "the image's answer has a transfer encoding that is not passed on",
            )),
            (None, Some(length)) => {
                let length = std::str::from_utf8(length).ok().and_then(|digits| digits.parse().ok());
                length
                    .map(Rest::Known)
                    .ok_or_else(|| program("the image's answer has no valid length"))
            }
            (None, None) => Ok(Rest::UntilTheEnd),
        }
    }

    /// The next bytes; none at the end.
    fn next(&mut self, from: &mut impl BufRead, left_of_chunk: &mut u64) -> Result<Option<Vec<u8>>, Fault> {
        let broke = || program("the image's answer broke off");
        let read = |from: &mut dyn BufRead, most: u64| -> Result<Vec<u8>, Fault> {
            let buffer = from.fill_buf().map_err(|_| broke())?;
            let length = buffer
                .len()
                .min(usize::try_from(most).unwrap_or(usize::MAX))
                .min(CHUNK_BYTES_MAX);
            let bytes = buffer[..length].to_vec();
            from.consume(length);
            Ok(bytes)
        };
        match self {
            Rest::Nothing | Rest::Known(0) => Ok(None),
            Rest::Known(left) => {
                let bytes = read(from, *left)?;
                *left -= bytes.len() as u64;
                match bytes.is_empty() {
                    true => Err(broke()),
                    false => Ok(Some(bytes)),
                }
            }
            Rest::UntilTheEnd => {
                let bytes = read(from, u64::MAX)?;
                Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
            }
            Rest::Chunked => {
                if *left_of_chunk == 0 {
                    let size = line(from)?;
                    let digits = size.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
                    let size = std::str::from_utf8(digits)
                        .ok()
                        .and_then(|text| u64::from_str_radix(text, 16).ok());
                    *left_of_chunk =
                        size.ok_or_else(|| program("a chunk of the image's answer has no valid length"))?;
                    if *left_of_chunk == 0 {
                        while !line(from)?.is_empty() {}
                        *self = Rest::Nothing;
                        return Ok(None);
                    }
                }
                let bytes = read(from, *left_of_chunk)?;
                if bytes.is_empty() {
                    return Err(broke());
                }
                *left_of_chunk -= bytes.len() as u64;
                if *left_of_chunk == 0 && !line(from)?.is_empty() {
                    return Err(program("a chunk of the image's answer has no valid end"));
                }
                Ok(Some(bytes))
            }
        }
    }
}

/// The last frame of the call.
fn receive(runner: &Runner, call: &Call, request: &Request, mut from: impl BufRead) -> Result<(u8, Vec<u8>), Fault> {
    let head = head(&mut from)?;
    let mut rest = Rest::of(&head, request.is_head)?;
    let is_short = match &rest {
        Rest::Nothing => true,
        Rest::Known(length) => *length <= WHOLE_BYTES_MAX as u64,
        Rest::Chunked | Rest::UntilTheEnd => false,
    };
    let mut left = 0;
    if request.is_http && !is_short {
        let said = format!("{{\"status\":{},\"headers\":{}}}", head.status, head.listed(true));
        runner.channel.say(&call.secret, b'h', said.as_bytes())?;
        while let Some(bytes) = rest.next(&mut from, &mut left)? {
            runner.channel.say(&call.secret, b'c', &bytes)?;
        }
        return Ok((b'S', Vec::new()));
    }
    let mut body = Vec::new();
    while let Some(bytes) = rest.next(&mut from, &mut left)? {
        body.extend_from_slice(&bytes);
        if body.len() as u64 > runner.output_bytes {
            return Ok((b'T', Vec::new()));
        }
    }
    if request.is_http {
        return Ok((b'O', whole(&head, &body, request.is_head).into_bytes()));
    }
    if head.status >= 400 {
        let shown = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES_MAX)]).into_owned();
        let message = format!("the image answered {}: {}", head.status, shown.trim());
        return Ok((b'R', crate::raised("HttpError", &message)));
    }
    Ok(crate::output(body, runner.output_bytes))
}

/// Text is kept readable, for whoever looks at the job.
fn whole(head: &Head, body: &[u8], is_head: bool) -> String {
    let mut said = format!("{{\"status\":{},\"header_list\":{}", head.status, head.listed(is_head));
    if !body.is_empty() {
        let kind = head.get("content-type").unwrap_or_default();
        let kind = String::from_utf8_lossy(kind).to_ascii_lowercase();
        let texts = [
            "text/",
            "application/json",
            "application/javascript",
            "application/xml",
            "application/problem+json",
        ];
        match std::str::from_utf8(body) {
            Ok(text) if texts.iter().any(|begin| kind.starts_with(begin)) => {
                said += &format!(",\"body\":{}", json::quoted(text));
            }
            _ => said += &format!(",\"body_base64\":\"{}\"", json::base64(body)),
        }
    }
    said + "}"
}
