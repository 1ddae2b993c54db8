//! What happens, told to the readers of `/events`.

use std::sync::Arc;

use piecework_api::{ledger::BlockView, metrics::StreamEvent};
use piecework_model::{AccountId, Code};
use piecework_serve::{Crowd, Member};
use piecework_store::{Function, Job};
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::{
    Answer,
    clock::{now_ms, timestamp},
    failure::refuse,
    shown,
};

/// Events that a slow reader may be behind before it loses some.
const BEHIND_MAX: usize = 1_024;

/// The kind of what is no event.
const BEAT: &str = "";

/// An event and its audience: everybody, or one developer (and operators).
pub(crate) struct Announced {
    pub(crate) audience: Option<AccountId>,
    pub(crate) event: StreamEvent,
}

impl Announced {
    pub(crate) fn is_beat(&self) -> bool {
        self.event.kind == BEAT
    }
}

pub(crate) struct Events {
    sender: broadcast::Sender<Arc<Announced>>,
    readers: Crowd<AccountId>,
}

/// Streams of events at a time, in all and of one account: each wakes every second.
const READERS_MAX: usize = 1_024;
const READERS_OF_AN_ACCOUNT_MAX: usize = 64;

impl Default for Events {
    fn default() -> Self {
        Self {
            sender: broadcast::channel(BEHIND_MAX).0,
            readers: Crowd::new(READERS_MAX, READERS_OF_AN_ACCOUNT_MAX),
        }
    }
}

impl Events {
    /// A place to read them for somebody, until it is dropped. Refuses with `server.busy`.
    pub(crate) fn place(&self, account: AccountId) -> Answer<Member<AccountId>> {
        match self.readers.enter(account) {
            Some(place) => Ok(place),
            None => refuse(
                Code::ServerBusy,
                "too many streams of events are open; close some of this account's, or retry later",
            ),
        }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<Announced>> {
        self.sender.subscribe()
    }

    pub(crate) fn has_listeners(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    /// A job ended.
    pub(crate) fn job(&self, job: &Job) {
        if !self.has_listeners() {
            return;
        }
        let body = json!({
            "id": job.id,
            "function": job.function_name,
            "developer": job.developer,
            "state": job.state,
            "cold": job.cold,
            "duration_ms": shown::ms(job.duration_us),
            "price_ucr": job.price_ucr,
        });
        self.send("job", Some(job.developer), body);
    }

    pub(crate) fn block(&self, block: BlockView) {
        if self.has_listeners() {
            self.send("block", None, serde_json::to_value(block).unwrap_or_default());
        }
    }

    /// Something became of a function.
    pub(crate) fn function(&self, kind: &str, function: &Function, detail: &Value) {
        if self.has_listeners() {
            let body = json!({"id": function.id, "function": function.name, "detail": detail});
            self.send(kind, Some(function.owner), body);
        }
    }

    /// That there is somebody at this end, for readers who would not notice otherwise.
    pub(crate) fn beat(&self) {
        if self.has_listeners() {
            self.send(BEAT, None, Value::Null);
        }
    }

    pub(crate) fn send(&self, kind: &str, audience: Option<AccountId>, body: Value) {
        let event = StreamEvent {
            kind: kind.to_owned(),
            at: timestamp(now_ms()),
            body,
        };
        // An error says that the last reader has just left.
        let _ = self.sender.send(Arc::new(Announced { audience, event }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_account_are_bounded_and_others_have_theirs() {
        let (events, one, other) = (Events::default(), AccountId([1; 20]), AccountId([2; 20]));
        let mut places: Vec<_> = (0..READERS_OF_AN_ACCOUNT_MAX)
            .map(|_| events.place(one).expect("there is room"))
            .collect();
        let refused = events.place(one).err().expect("the account has its share");
        assert_eq!(refused.code, Code::ServerBusy);
        events.place(other).expect("it is another's share");
        places.pop();
        events.place(one).expect("one was closed");
    }
}
