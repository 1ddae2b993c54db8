//! Tells operators what is wrong, once for each condition, and when it is over.
//!
//! ```text
//! condition appears --> firing --told to each channel--> ... --condition is gone--> resolved --told--> forgotten
//! ```
//! What is there is kept, with what each channel was told, so that a restart neither repeats nor loses a message. A channel
//! that does not listen is tried again with growing pauses, and gets the latest state of each condition: nothing piles up.

mod rules;
mod telling;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use piecework_api::alerts::{AlertMessage, AlertStatus, AlertView};
use piecework_model::Code;
use piecework_sink::notice::{Notice, Notify};
use serde::{Deserialize, Serialize};

use self::rules::{Condition, Seen};
use crate::{
    Answer,
    clock::{now_ms, timestamp},
    codecs,
    failure::{failed, refuse, store},
    functions::{Functions, suspects::Suspect},
    ground::Ground,
};

/// Where they are kept: rule/subject -> [`Alert`].
const SPACE: &str = "alert";
/// Conditions at a time; what is beyond is in the log.
const ALERTS_MAX: usize = 1_000;

/// What is wrong with the certificate that the server obtains by itself, if anything.
type Certificate = tokio::sync::watch::Receiver<Option<String>>;

/// The state of this room.
pub(crate) struct Alerts {
    ground: Arc<Ground>,
    functions: Arc<Functions>,
    channels: Vec<Arc<dyn Notify>>,
    certificate: Option<Certificate>,
    all: Mutex<BTreeMap<String, Alert>>,
    /// Held from reading an alert to having written it.
    keeping: tokio::sync::Mutex<()>,
    changed: tokio::sync::watch::Sender<u64>,
    seen: Mutex<Seen>,
}

/// One condition, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Alert {
    rule: String,
    subject: String,
    message: String,
    since_ms: u64,
    #[serde(default)]
    resolved_at_ms: Option<u64>,
    /// What each channel was told last.
    #[serde(default)]
    told: BTreeMap<String, AlertStatus>,
    /// The function to look at again.
    #[serde(default)]
    suspect: Option<Suspect>,
}

impl Alert {
    fn status(&self) -> AlertStatus {
        match self.resolved_at_ms {
            None => AlertStatus::Firing,
            Some(_) => AlertStatus::Resolved,
        }
    }

    /// What this channel is to be told now. One that never heard of a condition hears nothing of its end.
    fn due(&self, channel: &str) -> Option<AlertStatus> {
        match (self.status(), self.told.get(channel)) {
            (AlertStatus::Firing, Some(AlertStatus::Firing)) => None,
            (AlertStatus::Firing, Some(AlertStatus::Resolved) | None) => Some(AlertStatus::Firing),
            (AlertStatus::Resolved, Some(AlertStatus::Firing)) => Some(AlertStatus::Resolved),
            (AlertStatus::Resolved, Some(AlertStatus::Resolved) | None) => None,
        }
    }

    fn message(&self, ground: &Ground, key: &str) -> AlertMessage {
        AlertMessage {
            id: format!("{key}/{}/{}", self.since_ms, self.resolved_at_ms.unwrap_or(0)),
            status: self.status(),
            rule: self.rule.clone(),
            subject: self.subject.clone(),
            message: self.message.clone(),
            controller: ground.base_url.clone(),
            since: timestamp(self.since_ms),
            at: timestamp(self.resolved_at_ms.unwrap_or(self.since_ms)),
        }
    }
}

fn notice(message: &AlertMessage) -> Answer<Notice> {
    let body = serde_json::to_vec(message).map_err(|error| failed("encode an alert", &error))?;
    let status = match message.status {
        AlertStatus::Firing => "alert",
        AlertStatus::Resolved => "resolved",
    };
    let about = match message.subject.is_empty() {
        true => message.rule.clone(),
        false => format!("{} {}", message.rule, message.subject),
    };
    Ok(Notice {
        id: message.id.clone(),
        title: format!("[piecework] {status}: {about}"),
        text: format!(
            "{}\n\nStatus: {status}\nSince: {}\nAt: {}\nController: {}",
            message.message, message.since, message.at, message.controller
        ),
        body: body.into(),
    })
}

impl Alerts {
    pub(crate) fn new(
        ground: Arc<Ground>,
        functions: Arc<Functions>,
        (channels, certificate): (Vec<Arc<dyn Notify>>, Option<Certificate>),
    ) -> Arc<Self> {
        Arc::new(Self {
            ground,
            functions,
            channels,
            certificate,
            all: Mutex::default(),
            keeping: tokio::sync::Mutex::default(),
            changed: tokio::sync::watch::Sender::new(0),
            seen: Mutex::default(),
        })
    }

    /// Takes up what an earlier run has left, and begins to look.
    pub(crate) async fn start(self: &Arc<Self>) -> Answer<()> {
        let most = u32::try_from(ALERTS_MAX).expect("few");
        let kept = self.ground.store.list_values(SPACE, "", None, most);
        for (key, bytes) in kept.await.map_err(store)?.items {
            let alert: Alert = codecs::from_json(&bytes)?;
            if let Some(suspect) = &alert.suspect {
                let function = self.ground.store.function(suspect.function).await.map_err(store)?;
                if let Some(function) = function {
                    self.functions.suspects.add(*suspect, function.owner);
                }
            }
            self.all.lock().insert(key, alert);
        }
        let tasks = &self.ground.tasks;
        tasks.spawn(telling::look(self.clone()));
        for channel in &self.channels {
            tasks.spawn(telling::tell(self.clone(), channel.clone()));
        }
        Ok(())
    }

    /// What follows from the conditions that are there now. Writes what changed.
    async fn compare(&self, now: BTreeMap<String, Condition>) -> Answer<()> {
        let changes = {
            let mut all = self.all.lock();
            let changes = changes(&all, now, now_ms());
            for (key, alert) in &changes {
                match alert {
                    Some(alert) => drop(all.insert(key.clone(), alert.clone())),
                    None => drop(all.remove(key)),
                }
            }
            changes
        };
        for key in changes.keys() {
            self.keep(key).await?;
        }
        if !changes.is_empty() {
            self.changed.send_modify(|changes| *changes += 1);
        }
        Ok(())
    }

    /// As it is now: what two channels have heard at once is written twice, and the last has both.
    async fn keep(&self, key: &str) -> Answer<()> {
        let _in_turn = self.keeping.lock().await;
        let alert = self.all.lock().get(key).cloned();
        match alert {
            Some(alert) => codecs::put_json(&self.ground, SPACE, key, &alert).await,
            None => self.ground.store.take_value(SPACE, key).await.map(drop).map_err(store),
        }
    }

    /// The next thing that a channel is to be told.
    fn next(&self, channel: &str) -> Option<(String, Alert)> {
        let all = self.all.lock();
        let due = all.iter().find(|(_, alert)| alert.due(channel).is_some());
        due.map(|(key, alert)| (key.clone(), alert.clone()))
    }

    /// A channel has heard what was said of it.
    async fn heard(&self, channel: &str, key: &str, status: AlertStatus) -> Answer<()> {
        {
            let mut all = self.all.lock();
            let Some(alert) = all.get_mut(key) else { return Ok(()) };
            alert.told.insert(channel.to_owned(), status);
            if alert.resolved_at_ms.is_some() && self.is_told(alert) {
                all.remove(key);
            }
        }
        self.keep(key).await
    }

    fn is_told(&self, alert: &Alert) -> bool {
        self.channels.iter().all(|channel| alert.due(channel.name()).is_none())
    }

    pub(crate) fn firing(&self) -> u64 {
        self.all
            .lock()
            .values()
            .filter(|alert| alert.resolved_at_ms.is_none())
            .count() as u64
    }
}

/// What changes, by key: `None` is to be forgotten.
fn changes(
    all: &BTreeMap<String, Alert>,
    now: BTreeMap<String, Condition>,
    now_ms: u64,
) -> BTreeMap<String, Option<Alert>> {
    let mut changes = BTreeMap::new();
    for (key, alert) in all {
        if now.contains_key(key) || alert.resolved_at_ms.is_some() {
            continue;
        }
        let has_been_told = alert.told.values().any(|told| *told == AlertStatus::Firing);
        let resolved = Alert {
            resolved_at_ms: Some(now_ms),
            ..alert.clone()
        };
        changes.insert(key.clone(), has_been_told.then_some(resolved));
    }
    let mut room = ALERTS_MAX.saturating_sub(all.len());
    for (key, condition) in now {
        match all.get(&key) {
            Some(alert) if alert.resolved_at_ms.is_none() => continue,
            Some(_) => {}
            None if room == 0 => {
                tracing::warn!(key, "too many alerts at once: this one is not sent");
                continue;
            }
            None => room -= 1,
        }
        tracing::warn!(
            rule = condition.rule,
            subject = condition.subject,
            "{}",
            condition.message
        );
        let told = all.get(&key).map(|alert| alert.told.clone());
        let alert = Alert {
            rule: condition.rule.to_owned(),
            subject: condition.subject,
            message: condition.message,
            since_ms: now_ms,
            resolved_at_ms: None,
            told: told
                .unwrap_or_default()
                .into_keys()
                .map(|channel| (channel, AlertStatus::Resolved))
                .collect(),
            suspect: condition.suspect,
        };
        changes.insert(key, Some(alert));
    }
    changes
}

/// What is wrong now.
pub(crate) fn list(alerts: &Alerts) -> Vec<AlertView> {
    let all = alerts.all.lock();
    let firing = all.values().filter(|alert| alert.resolved_at_ms.is_none());
    let view = |alert: &Alert| AlertView {
        rule: alert.rule.clone(),
        subject: alert.subject.clone(),
        message: alert.message.clone(),
        since: timestamp(alert.since_ms),
    };
    firing.map(view).collect()
}

/// Sends a message to every channel, once. Refuses with `alert.no_channel` and `alert.undelivered`.
pub(crate) async fn test(alerts: &Alerts) -> Answer<()> {
    if alerts.channels.is_empty() {
        return refuse(
            Code::AlertNoChannel,
            "the server has no channel for alerts; set a webhook or a command",
        );
    }
    let now = now_ms();
    let message = AlertMessage {
        id: format!("test/{now}"),
        status: AlertStatus::Firing,
        rule: "test".to_owned(),
        subject: String::new(),
        message: "This is a test; nothing is wrong.".to_owned(),
        controller: alerts.ground.base_url.clone(),
        since: timestamp(now),
        at: timestamp(now),
    };
    let notice = notice(&message)?;
    for channel in &alerts.channels {
        if let Err(unheard) = channel.notify(&notice).await {
            return refuse(Code::AlertUndelivered, unheard.to_string());
        }
    }
    Ok(())
}
