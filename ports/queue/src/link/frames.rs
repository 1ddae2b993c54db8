//! What travels over an established link, in borsh: all frames of version 2, and the records that version 3 has in common with
//! it. Their bytes are relied on by programs that are out there: `tests/link/golden` holds them.

use std::{sync::Arc, time::Duration};

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use piecework_model::{AccountId, Counters, Digest, FunctionId, LeaseId, PublicKey, Receipt, Rejection, Seal, Ticket};
use piecework_sandbox::{Finished, Inlet, LoadError, Logs, Outcome, Outlet};
use tokio_util::sync::CancellationToken;

use crate::{Delivery, Load, Order, Unsealed, Work};

/// Which order: its ticket's lane at this provider, and place in it. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct OrderId {
    pub lease: LeaseId,
    pub sequence: u64,
}

impl OrderId {
    pub fn of(ticket: &Ticket) -> Self {
        Self {
            lease: ticket.lease,
            sequence: ticket.sequence,
        }
    }
}

#[derive(Clone, BorshSerialize, BorshDeserialize)]
pub(super) struct OrderFrame {
    pub(super) ticket: Ticket,
    payer: PublicKey,
    exposure_ucr: u64,
    seal: Option<Seal>,
    work: Work,
    pub(super) event: Bytes,
    pub(super) parameters: Bytes,
}

impl OrderFrame {
    pub(super) fn new(order: &Order) -> Self {
        Self {
            event: order.event.clone(),
            parameters: order.parameters.clone(),
            ..Self::bare(order)
        }
    }

    /// Without event and parameters.
    pub(super) fn bare(order: &Order) -> Self {
        Self {
            ticket: order.ticket.clone(),
            payer: order.payer,
            exposure_ucr: order.exposure_ucr,
            seal: order.seal.clone(),
            work: Work::clone(&order.work),
            event: Bytes::new(),
            parameters: Bytes::new(),
        }
    }

    /// Without a salt, and final.
    pub(super) fn into_order(self, cancel: CancellationToken, (body, outlet): (Option<Inlet>, Outlet)) -> Order {
        Order {
            salt: None,
            is_tentative: false,
            ticket: self.ticket,
            payer: self.payer,
            exposure_ucr: self.exposure_ucr,
            seal: self.seal,
            work: Arc::new(self.work),
            event: self.event,
            parameters: self.parameters,
            cancel,
            body,
            outlet,
        }
    }
}

#[derive(Clone, BorshSerialize, BorshDeserialize)]
pub(super) struct DeliveryFrame {
    receipt: Receipt,
    mark: [u8; 32],
    pub(super) outcome: Outcome,
    logs: Logs,
    counters: Counters,
    memory_peak_bytes: u64,
    duration_us: u64,
    reusable: bool,
    cold: bool,
    pull_us: u64,
}

impl From<Delivery> for DeliveryFrame {
    fn from(delivery: Delivery) -> Self {
        let finished = delivery.finished;
        Self {
            receipt: delivery.receipt,
            mark: delivery.mark,
            outcome: finished.outcome,
            logs: finished.logs,
            counters: finished.counters,
            memory_peak_bytes: finished.memory_peak_bytes,
            duration_us: u64::try_from(finished.duration.as_micros()).unwrap_or(u64::MAX),
            reusable: finished.reusable,
            cold: delivery.cold,
            pull_us: delivery.pull_us,
        }
    }
}

impl From<DeliveryFrame> for Delivery {
    fn from(frame: DeliveryFrame) -> Self {
        Self {
            receipt: frame.receipt,
            mark: frame.mark,
            finished: Finished {
                outcome: frame.outcome,
                logs: frame.logs,
                counters: frame.counters,
                memory_peak_bytes: frame.memory_peak_bytes,
                duration: Duration::from_micros(frame.duration_us),
                reusable: frame.reusable,
            },
            cold: frame.cold,
            pull_us: frame.pull_us,
            is_cut: false,
        }
    }
}

/// A question that one answer ends; asked again after a cut it does the same.
#[derive(Clone, BorshSerialize, BorshDeserialize)]
pub(super) enum Ask {
    Check(Work),
    AcceptSeal(Seal, Vec<u64>),
    SealReceipts((LeaseId, AccountId), Vec<Unsealed>),
}

#[derive(Clone, BorshSerialize, BorshDeserialize)]
pub(super) enum Answer {
    Checked(Result<(), LoadError>),
    Accepted(Result<(), Rejection>),
    Sealed(Result<Seal, Rejection>),
}

#[derive(Clone, BorshSerialize, BorshDeserialize)]
pub(super) enum ToProvider {
    Order(Box<OrderFrame>),
    Cancel(OrderId),
    /// The delivery arrived, or nobody wants it any more: forget it.
    Confirm(OrderId),
    Ask(u64, Box<Ask>),
    Forget(FunctionId, u32),
    /// Part of a bundle; `total` bytes in all, 0 where there is none.
    Chunk {
        fetch: u64,
        total: u64,
        bytes: Bytes,
    },
    Beat,
}

#[derive(Clone, BorshSerialize, BorshDeserialize)]
pub(super) enum ToController {
    Done(OrderId, Box<Result<DeliveryFrame, Rejection>>),
    Answer(u64, Box<Answer>),
    Fetch { fetch: u64, digest: Digest, offset: u64 },
    Beat { load: Load, warm: Vec<(FunctionId, u32)> },
}
