//! As much of HTTP/1.1 as a load generator needs: fixed requests, kept-alive connections, answers by length or chunks.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Longer than any measured call takes; a hung server fails the run.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Where requests go.
#[derive(Clone, Debug)]
pub struct Site {
    pub address: SocketAddr,
    pub host: String,
    /// The path and query of the URL; `/` at least.
    pub path: String,
}

impl Site {
    /// Of a plain `http://host[:port][/path]`.
    pub fn parse(url: &str) -> Result<Self> {
        let rest = url
            .strip_prefix("http://")
            .with_context(|| format!("{url} is not a plain http:// URL"))?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let with_port = if host.contains(':') {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let address = with_port
            .to_socket_addrs()
            .with_context(|| format!("resolve {host}"))?
            .next();
        let address = address.with_context(|| format!("{host} has no address"))?;
        Ok(Self {
            address,
            host: host.to_owned(),
            path: format!("/{path}"),
        })
    }

    /// The bytes of a request; a body is sent as JSON.
    pub fn request(&self, method: &str, path: &str, token: Option<&str>, body: Option<&str>) -> Vec<u8> {
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.host);
        if let Some(token) = token {
            text += &format!("authorization: Bearer {token}\r\n");
        }
        if let Some(body) = body {
            text += &format!(
                "content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
        } else {
            text += "\r\n";
        }
        text.into_bytes()
    }
}

/// A complete answer at the front of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Where its body lies in the buffer, chunk sizes included if it came in chunks.
    body: std::ops::Range<usize>,
    /// Bytes of head and body.
    pub length: usize,
    is_chunked: bool,
}

impl Answer {
    /// The answer that `buffer` begins with; `None` while bytes are missing.
    pub fn parse(buffer: &[u8]) -> Result<Option<Self>> {
        let Some(head_end) = find(buffer, b"\r\n\r\n") else {
            ensure!(buffer.len() < HEAD_BYTES_MAX, "an answer's head is too long");
            return Ok(None);
        };
        let head = std::str::from_utf8(&buffer[..head_end]).context("an answer's head is not UTF-8")?;
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .and_then(|status| status.parse().ok());
        let status: u16 = status.context("an answer has no status")?;
        let (mut length, mut is_chunked) = (None, false);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.trim().parse::<usize>().context("a bad content-length")?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                is_chunked = value.trim().eq_ignore_ascii_case("chunked");
            }
        }
        let start = head_end + 4;
        let length = match length {
            _ if is_chunked => match chunks_end(&buffer[start..])? {
                Some(length) => length,
                None => return Ok(None),
            },
            Some(length) => length,
            None if matches!(status, 204 | 304) => 0,
            None => bail!("an answer tells neither its length nor chunks"),
        };
        if buffer.len() < start + length {
            return Ok(None);
        }
        Ok(Some(Self {
            status,
            body: start..start + length,
            length: start + length,
            is_chunked,
        }))
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    fn body(&self, buffer: &[u8]) -> Vec<u8> {
        let raw = &buffer[self.body.clone()];
        if !self.is_chunked {
            return raw.to_vec();
        }
        let (mut body, mut rest) = (Vec::new(), raw);
        while let Some((size, after)) = chunk(rest).filter(|(size, _)| *size > 0) {
            body.extend_from_slice(&rest[after..after + size]);
            rest = &rest[after + size + 2..];
        }
        body
    }
}

/// The bytes of all chunks with the last, empty one.
fn chunks_end(bytes: &[u8]) -> Result<Option<usize>> {
    let mut at = 0;
    while let Some((size, after)) = chunk(&bytes[at..]) {
        at += after + size + 2;
        if at > bytes.len() {
            return Ok(None);
        }
        if size == 0 {
            return Ok(Some(at));
        }
    }
    ensure!(bytes.len() - at.min(bytes.len()) < 64, "a chunk has no size");
    Ok(None)
}

/// A chunk's size, and where its bytes begin.
fn chunk(bytes: &[u8]) -> Option<(usize, usize)> {
    let end = find(bytes, b"\r\n")?;
    let digits = std::str::from_utf8(&bytes[..end]).ok()?;
    usize::from_str_radix(digits.split(';').next()?.trim(), 16)
        .ok()
        .map(|size| (size, end + 2))
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// One blocking connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub fn open(site: &Site) -> Result<Self> {
        let stream = TcpStream::connect(site.address).with_context(|| format!("connect to {}", site.host))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(16 << 10),
        })
    }

    /// Sends a request and waits for its whole answer.
    pub fn send(&mut self, request: &[u8]) -> Result<(Answer, Vec<u8>)> {
        self.stream.write_all(request).context("send a request")?;
        self.buffer.clear();
        let mut chunk = [0; 16 << 10];
        loop {
            let got = self.stream.read(&mut chunk).context("read an answer")?;
            ensure!(got > 0, "the server closed the connection");
            self.buffer.extend_from_slice(&chunk[..got]);
            if let Some(answer) = Answer::parse(&self.buffer)? {
                let body = answer.body(&self.buffer);
                return Ok((answer, body));
            }
        }
    }

    /// Sends a request that must succeed with JSON.
    pub fn json(&mut self, request: &[u8]) -> Result<Value> {
        let (answer, body) = self.send(request)?;
        let text = String::from_utf8_lossy(&body);
        ensure!(answer.is_success(), "status {}: {text}", answer.status);
        if body.is_empty() {
            Ok(Value::Null)
        } else {
            serde_json::from_str(&text).context("an answer is not JSON")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_when_its_last_byte_is_there() {
        let by_length = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".as_slice();
        let chunked =
            b"HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n"
                .as_slice();
        for (whole, status) in [(by_length, 200), (chunked, 404)] {
            for end in 0..whole.len() {
                assert_eq!(Answer::parse(&whole[..end]).expect("parses"), None, "at {end}");
            }
            let answer = Answer::parse(whole).expect("parses").expect("complete");
            assert_eq!((answer.status, answer.length), (status, whole.len()));
            assert_eq!(answer.body(whole), b"hello");
        }
        let empty = b"HTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(
            Answer::parse(empty).expect("parses").expect("complete").length,
            empty.len()
        );
        assert!(Answer::parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
