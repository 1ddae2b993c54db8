//! Looks at the bytes of a request's head for what parsers read differently, since two that disagree about where a request
//! ends let one be hidden in another: lines that end with a bare LF, and two ways of telling a body's length.

/// Longer than the names that matter.
const NAME_BYTES: usize = 18;

/// Goes over the heads on one connection, as their bytes come.
#[derive(Default)]
pub(crate) struct Scanner {
    /// The beginning of the line, in lower case.
    name: [u8; NAME_BYTES],
    /// Bytes of the line so far, without its end.
    length: usize,
    previous: u8,
    has_begun: bool,
    is_over: bool,
    has_length: bool,
    has_encoding: bool,
}

/// A head that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    BareLf,
    TwoLengths,
}

impl Scanner {
    /// The next bytes are the beginning of a head.
    pub(crate) fn begin(&mut self) {
        *self = Self {
            previous: self.previous,
            ..Self::default()
        };
    }

    /// Bytes that are no head's.
    pub(crate) fn pass(&mut self, bytes: &[u8]) {
        self.previous = bytes.last().copied().unwrap_or(self.previous);
    }

    /// The next bytes of a head, and whatever follows it.
    pub(crate) fn scan(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        for byte in bytes {
            if self.is_over {
                break;
            }
            match byte {
                b'\n' if self.previous != b'\r' => return Err(Fault::BareLf),
                b'\n' => self.end_line()?,
                b'\r' => {}
                byte => {
                    if let Some(place) = self.name.get_mut(self.length) {
                        *place = byte.to_ascii_lowercase();
                    }
                    self.length += 1;
                }
            }
            self.previous = *byte;
        }
        self.pass(bytes);
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), Fault> {
        let name = &self.name[..self.length.min(NAME_BYTES)];
        match name {
            // Empty lines before a request are passed over.
            [] => self.is_over = self.has_begun,
            name => {
                let is =
                    |known: &[u8]| name.starts_with(known) && name.get(known.len()).is_none_or(|next| *next == b':');
                self.has_length |= is(b"content-length");
                self.has_encoding |= is(b"transfer-encoding");
                self.has_begun = true;
            }
        }
        self.length = 0;
        match self.has_length && self.has_encoding {
            true => Err(Fault::TwoLengths),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_parsers_read_differently_is_found_however_it_is_cut() {
        let table: [(&[u8], Result<(), Fault>); 9] = [
            (b"GET / HTTP/1.1\r\nhost: h\r\n\r\n", Ok(())),
            (b"\r\nGET / HTTP/1.1\r\nhost: h\r\n\r\nbody\nwith\nlines", Ok(())),
            (
                b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Lengthy: 3\r\n\r\na\nb",
                Ok(()),
            ),
            (b"GET / HTTP/1.1\nhost: h\n\n", Err(Fault::BareLf)),
            (b"GET / HTTP/1.1\r\nhost: h\n\r\n", Err(Fault::BareLf)),
            (b"GET / HTTP/1.1\r\nhost: h\r\n\n", Err(Fault::BareLf)),
            (
                b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
                Err(Fault::TwoLengths),
            ),
            (
                b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nx: y\r\ncontent-length: 3\r\n\r\n",
                Err(Fault::TwoLengths),
            ),
            (
                b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
                Ok(()),
            ),
        ];
        for (bytes, due) in table {
            for cut in 0..bytes.len() {
                let mut scanner = Scanner::default();
                scanner.begin();
                let (first, second) = bytes.split_at(cut);
                let found = scanner.scan(first).and_then(|()| scanner.scan(second));
                assert_eq!(found, due, "{} cut at {cut}", String::from_utf8_lossy(bytes));
            }
        }
    }

    #[test]
    fn the_next_head_is_looked_at_as_well() {
        let mut scanner = Scanner::default();
        scanner.begin();
        scanner
            .scan(b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n")
            .expect("fine");
        scanner.pass(b"\r\n");
        scanner.begin();
        let two = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(scanner.scan(two), Ok(()), "the other's length is not this one's");
        scanner.begin();
        assert_eq!(scanner.scan(b"GET / HTTP/1.1\n"), Err(Fault::BareLf));
    }
}
