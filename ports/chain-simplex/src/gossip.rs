//! Passes transactions on to the other peers, so that none has to wait for its own peer's turn to propose.
//!
//! All peers are connected, so what comes from another is not passed on. Best effort: a transaction that does not reach the
//! others is proposed by the peer that took it.

use std::time::Duration;

use commonware_p2p::{Message, Receiver, Recipients, Sender};
use commonware_runtime::{Clock, IoBuf, Spawner};
use piecework_ledger::SignedTransaction;
use tokio::sync::mpsc;

use crate::{SubmitError, admission::Admission, mempool::TRANSACTION_BYTES_MAX};

/// Transactions that wait to be passed on; beyond that they are not.
const WAITING_MAX: usize = 4096;
const PER_MESSAGE_MAX: usize = 1000;
/// A message: one transaction of full size always fits.
pub(crate) const MESSAGE_BYTES_MAX: usize = TRANSACTION_BYTES_MAX + (64 << 10);
/// Gathers what is submitted together, and keeps below the channel's quota of messages.
const GATHER: Duration = Duration::from_millis(3);

/// Where accepted transactions go to reach the other peers; with nobody there, nowhere.
pub(crate) type Outbox = mpsc::Sender<SignedTransaction>;

pub(crate) fn outbox() -> (Outbox, mpsc::Receiver<SignedTransaction>) {
    mpsc::channel(WAITING_MAX)
}

/// Starts both directions.
pub(crate) fn start<E, S, R>(
    runtime: &E,
    (sender, receiver): (S, R),
    outgoing: mpsc::Receiver<SignedTransaction>,
    admission: Admission,
) where
    E: Spawner + Clock,
    S: Sender,
    R: Receiver,
{
    runtime
        .child("gossip_out")
        .spawn(move |clock| send(clock, sender, outgoing));
    runtime.child("gossip_in").spawn(move |_| receive(receiver, admission));
}

async fn send<E: Clock, S: Sender>(clock: E, mut sender: S, mut outgoing: mpsc::Receiver<SignedTransaction>) {
    let mut waiting = None;
    loop {
        let first = match waiting.take() {
            Some(first) => first,
            None => match outgoing.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        clock.sleep(GATHER).await;
        let mut bytes = length(&first);
        let mut batch = vec![first];
        while batch.len() < PER_MESSAGE_MAX
            && let Ok(next) = outgoing.try_recv()
        {
            if bytes + length(&next) > TRANSACTION_BYTES_MAX {
                waiting = Some(next);
                break;
            }
            bytes += length(&next);
            batch.push(next);
        }
        let message = borsh::to_vec(&batch).expect("a vector accepts every byte");
        // Peers that are away learn of these transactions from a block.
        let _ = sender.send(Recipients::All, IoBuf::from(message), false);
    }
}

fn length(transaction: &SignedTransaction) -> usize {
    borsh::object_length(transaction).expect("a counter accepts every byte")
}

async fn receive<R: Receiver>(mut receiver: R, admission: Admission) {
    while let Ok((_, message)) = receiver.recv().await as Result<Message<R::PublicKey>, R::Error> {
        let bytes = message.as_ref();
        if bytes.len() > MESSAGE_BYTES_MAX {
            continue;
        }
        let Ok(batch) = borsh::from_slice::<Vec<SignedTransaction>>(bytes) else {
            continue;
        };
        for transaction in batch.into_iter().take(PER_MESSAGE_MAX) {
            match admission.admit(transaction.id(), transaction).await {
                // A refusal concerns whoever submitted it: that peer has told them, or the state moved on since.
                Ok(_) | Err(SubmitError::Rejected(_)) => {}
                Err(SubmitError::Failed(_)) => return,
            }
        }
    }
}
