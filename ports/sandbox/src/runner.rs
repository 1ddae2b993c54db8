//! The protocol between an agent and the runner that serves one program's calls inside a sandbox, over any byte stream.
//!
//! A backend gives the [`Channel`] a stream (a socket pair, a pipe into a container, a serial line of a virtual machine);
//! the runners in `runtimes/` are its other end. Both send frames:
//!
//! ```text
//! length of what follows (u32, little-endian) | 16 bytes of secret | 1 byte of kind | payload
//!
//! runner                        agent
//! H {"protocol":3}  ------->          the sandbox stands; its secret is zero
//!                   <-------  L {...} load: settings                    a secret of its own for each L and C
//! D | E {...}       ------->          loaded, or why not
//!                   <-------  C {...} call: event and context
//! h {...}           ------->          head: the answer is a stream          \
//! c bytes           ------->          chunk of it                            \  in a call, in any mixture
//! B                 ------->          wants the next part of the body        /
//!                   <-------  b bytes | e    that part, or its end          /
//! Q                 ------->          wants no more of it: an unanswered B is answered with e
//! W                 ------->          wants to know when nobody reads the answer any more
//!                   <-------  g          nobody does: what it still says is dropped, and it has a moment to end
//! V                 ------->          wants to know it no more: an unanswered W is answered with g; both once a call
//! X                 ------->          the call left something running: the sandbox serves nobody else
//! S | O {...} | R {...} | I text | T | M      how the call ended: streamed, output, raised, invalid, too large, no memory
//! ```
//!
//! The process behind the stream is not trusted with it. An agent takes a frame only under the secret of the question that
//! it has asked, within the length of its kind, and in its place: chunks after one head, nothing after the answer. Anything
//! else ends the call as [`Outcome::OutputInvalid`], and the sandbox is not used again. A frame is refused as soon as its
//! first bytes show it; what is held of the stream is one frame and what the outlet has no room for.

mod channel;
mod frames;
#[cfg(test)]
mod fuzz;
mod messages;
#[cfg(test)]
mod tests;

pub use channel::{Channel, Ended, NotLoaded, Watched};
pub use messages::{CONTRACT_FIELD, load_failed};

/// The runner of container images: a static program for this machine's kernel and processor, to be the first process of a sandbox.
/// Its one argument says where the channel is: the number of an open descriptor, two of them (`3,4`: reads, writes), `stdio`, or a
/// directory with the named pipes `in`, `out` and `printed`. It needs nothing of its root, ends
/// with the channel, and with the image's server, whose exit code becomes its own (128 and the number of a signal).
pub fn image_runner() -> Vec<u8> {
    static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/image-runner.zst"));
    zstd::decode_all(PACKED).expect("the build script packed it")
}

/// What a runner says that it speaks in its first frame. Whoever changes frames or their order counts up.
pub const PROTOCOL: u32 = 3;

#[cfg(doc)]
use crate::Outcome;
