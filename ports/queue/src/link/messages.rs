//! What travels on the streams of a session of version 3 to 5, in borsh, each message behind its length (32 bits, little endian).
//!
//! ```text
//! control   controller: Opening::Control, Tell*                         provider: Say*
//! a job     controller: Opening::Order, event, parameters, body chunks  provider: Part::Begun, [Head], Chunk*,
//!                                                                                 Finished, output
//! a result  controller: Opening::Fetch                                  provider: as for a job, from where it stands
//! a bundle  controller: Opening::Bundle, its bytes                      provider: nothing
//! ```
//! Event, parameters, output and bundle are bare bytes of a length told before; chunks of a body are as messages are, and an
//! empty one ends them.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use piecework_model::{Digest, FunctionId, Rejection, Salt};
use piecework_sandbox::Head;

use super::frames::{Answer, Ask, DeliveryFrame, OrderFrame, OrderId};
use crate::Load;

/// The first message of a stream, from the controller.
#[derive(BorshSerialize, BorshDeserialize)]
pub(super) enum Opening {
    Control,
    Order {
        /// Without event and parameters.
        order: Box<OrderFrame>,
        event_bytes: u32,
        parameters_bytes: u32,
        has_body: bool,
    },
    /// What came of an order of which parts have passed already: it is not ordered again.
    Fetch(OrderId),
    Bundle {
        fetch: u64,
        /// `None`: it is not to be had.
        bytes: Option<u64>,
    },
    /// An order whose digests are salted. From version 4 on; it comes last, as it came later.
    Salted {
        salt: Salt,
        order: Box<OrderFrame>,
        event_bytes: u32,
        parameters_bytes: u32,
        has_body: bool,
    },
    /// An order that may be given up where its sandbox falls short. From version 5 on.
    Tentative {
        salt: Option<Salt>,
        order: Box<OrderFrame>,
        event_bytes: u32,
        parameters_bytes: u32,
        has_body: bool,
    },
}

/// From the provider, on the stream of a job: begun, then a head where the answer is a stream, its chunks, then the end.
#[derive(BorshSerialize, BorshDeserialize)]
pub(super) enum Part {
    Begun,
    Head(Head),
    Chunk(Bytes),
    Finished {
        /// Without the output.
        delivery: Box<DeliveryFrame>,
        output_bytes: u32,
        /// Parts that had passed before were lost with a session.
        is_cut: bool,
    },
    Refused(Rejection),
    /// It knows of no such order.
    Unknown,
}

/// On the control stream, to the provider.
#[derive(BorshSerialize, BorshDeserialize)]
pub(super) enum Tell {
    Ask(u64, Box<Ask>),
    Cancel(OrderId),
    /// The delivery arrived, or nobody wants it any more: forget it.
    Confirm(OrderId),
    Forget(FunctionId, u32),
    /// At the beginning of a session, all orders of earlier ones that somebody waits for.
    Waiting(Vec<OrderId>),
    Beat,
}

/// On the control stream, to the controller.
#[derive(BorshSerialize, BorshDeserialize)]
pub(super) enum Say {
    Beat {
        load: Load,
        warm: Vec<(FunctionId, u32)>,
    },
    Answer(u64, Box<Answer>),
    /// What came of an order is kept here, and no stream has carried it.
    Kept(OrderId),
    Fetch {
        fetch: u64,
        digest: Digest,
    },
}
