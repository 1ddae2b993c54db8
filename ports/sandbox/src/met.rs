//! Which limit of its sandbox a run met, by the error that it did not catch.
//!
//! The kernel refuses the call (a write, an open, a fork) and the interpreter raises what it always raises then: that error's
//! number or name is known, and only the function's own code could write another. It would deceive only its owner.

use piecework_model::Code;

use crate::Raised;

/// How Python and Node name an error of the kernel.
struct Sign {
    code: Code,
    what: &'static str,
    /// Any of these begins, or is in, the message.
    messages: &'static [&'static str],
    /// Where the same number has other causes: one of these is in the stack or the message.
    only_if: &'static [&'static str],
}

const SIGNS: [Sign; 3] = [
    Sign {
        code: Code::FunctionDiskFull,
        what: "filled its part of `/tmp`",
        // ENOSPC, EFBIG (one file as large as all may be), EDQUOT.
        messages: &[
            "[Errno 28]",
            "[Errno 27]",
            "[Errno 122]",
            "ENOSPC:",
            "EFBIG:",
            "EDQUOT:",
        ],
        only_if: &[],
    },
    Sign {
        code: Code::FunctionTooManyFiles,
        what: "opened more files than it may",
        messages: &["[Errno 24]", "[Errno 23]", "EMFILE", "ENFILE"],
        only_if: &[],
    },
    Sign {
        code: Code::FunctionTooManyProcesses,
        what: "started more processes or threads than it may",
        // EAGAIN, which a socket that does not wait raises too.
        messages: &["[Errno 11]", " EAGAIN", "can't start new thread"],
        only_if: &["fork", "spawn", "start new thread", "ERR_WORKER_INIT_FAILED"],
    },
];

impl Raised {
    /// The code of the limit, and what the run did to meet it.
    pub fn limit_met(&self) -> Option<(Code, &'static str)> {
        let within = |text: &str| self.message.contains(text) || self.stack.contains(text);
        let met = SIGNS.iter().find(|sign| {
            sign.messages.iter().any(|text| self.message.contains(text))
                && (sign.only_if.is_empty() || sign.only_if.iter().any(|text| within(text)))
        });
        met.map(|sign| (sign.code, sign.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(kind: &str, message: &str, stack: &str) -> Option<Code> {
        let raised = Raised {
            kind: kind.into(),
            message: message.into(),
            stack: stack.into(),
        };
        raised.limit_met().map(|(code, _)| code)
    }

    #[test]
    fn an_error_of_the_kernel_names_the_limit() {
        let full = Some(Code::FunctionDiskFull);
        assert_eq!(met("OSError", "[Errno 28] No space left on device", ""), full);
        assert_eq!(met("OSError", "[Errno 27] File too large", ""), full);
        assert_eq!(met("Error", "ENOSPC: no space left on device, write", ""), full);
        let files = Some(Code::FunctionTooManyFiles);
        assert_eq!(met("OSError", "[Errno 24] Too many open files: '/tmp/a'", ""), files);
        assert_eq!(met("Error", "EMFILE: too many open files, open '/tmp/a'", ""), files);
        assert_eq!(met("Error", "spawn /bin/sleep EMFILE", ""), files);
        let processes = Some(Code::FunctionTooManyProcesses);
        let fork = "  File \"main.py\", line 3, in handler\n    os.fork()\n";
        assert_eq!(
            met("BlockingIOError", "[Errno 11] Resource temporarily unavailable", fork),
            processes
        );
        assert_eq!(met("RuntimeError", "can't start new thread", ""), processes);
        assert_eq!(met("Error", "spawn /bin/sleep EAGAIN", ""), processes);
    }

    #[test]
    fn other_errors_stay_what_they_are() {
        assert_eq!(met("KeyError", "'name'", ""), None);
        assert_eq!(met("ValueError", "no space left", ""), None);
        let socket = "  File \"main.py\", line 3, in handler\n    socket.recv(1)\n";
        assert_eq!(
            met("BlockingIOError", "[Errno 11] Resource temporarily unavailable", socket),
            None
        );
        assert_eq!(
            met("FileNotFoundError", "[Errno 2] No such file or directory: 'fork'", ""),
            None
        );
    }
}
