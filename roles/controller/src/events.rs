//! What happens, told to the readers of `/events`.

use std::sync::Arc;

use piecework_api::{ledger::BlockView, metrics::StreamEvent};
use piecework_model::AccountId;
use piecework_store::{Function, Job};
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::{
    clock::{now_ms, timestamp},
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

pub(crate) struct Events(broadcast::Sender<Arc<Announced>>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::channel(BEHIND_MAX).0)
    }
}

impl Events {
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<Announced>> {
        self.0.subscribe()
    }

    pub(crate) fn has_listeners(&self) -> bool {
        self.0.receiver_count() > 0
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
        let _ = self.0.send(Arc::new(Announced { audience, event }));
    }
}
