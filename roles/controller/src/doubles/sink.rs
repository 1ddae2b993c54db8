//! A developer's own place for results: it answers as it is told to, and keeps what it was sent.

use async_trait::async_trait;
use parking_lot::Mutex;
use piecework_model::Rejection;
use piecework_sink::{Deliver, Parcel, Sink, Undelivered};

#[derive(Default)]
pub(crate) struct Place {
    status: Mutex<Option<u16>>,
    sent: Mutex<Vec<(Sink, Parcel)>>,
}

impl Place {
    /// Refuses what it is sent from now on, with this status; nothing any more, without.
    pub(crate) fn refuse_with(&self, status: Option<u16>) {
        *self.status.lock() = status;
    }

    /// What it was sent, taken or not.
    pub(crate) fn sent(&self) -> Vec<(Sink, Parcel)> {
        self.sent.lock().clone()
    }
}

#[async_trait]
impl Deliver for Place {
    fn check(&self, _: &Sink) -> Result<(), Rejection> {
        Ok(())
    }

    async fn deliver(&self, sink: &Sink, parcel: &Parcel) -> Result<(), Undelivered> {
        self.sent.lock().push((sink.clone(), parcel.clone()));
        match *self.status.lock() {
            Some(status) => Err(Undelivered::Answered(status)),
            None => Ok(()),
        }
    }
}
