//! `piecework triggers forward`: a queue's messages become jobs.
//!
//! A client of the HTTP API like any other, beside the queue or anywhere else: the controller neither connects to strangers' brokers nor
//! keeps their passwords.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::{StreamExt as _, stream};
use piecework_api::{Client, ClientError, execute::Execute};
use piecework_intake::{Intake, Message, Source, Verdict};
use piecework_model::{Code, Digest};
use serde_json::{Value, json, value::RawValue};

use crate::{failure::Failure, session};

/// After a connection or a controller was lost.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// Until a message comes again that found no room.
const LATER: Duration = Duration::from_secs(5);

/// Call a function for each message of a NATS or AMQP queue, until Ctrl-C
///
/// A message is acknowledged once its job is safe on disk. Each is delivered at least once; a message that is delivered again finds
/// its job by its id.
#[derive(Debug, clap::Args)]
pub struct Forward {
    /// Name or id of the function
    function: String,
    /// nats://HOST:PORT, tls://HOST:PORT, amqp://USER:PASSWORD@HOST:PORT/VHOST or amqps://...
    #[arg(long, value_name = "URL", env = "PIECEWORK_QUEUE_URL", hide_env_values = true)]
    from: String,
    /// NATS: stream to read
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
    /// NATS: durable consumer, which is created if it is missing; all that use it share the messages [default: piecework-FUNCTION]
    #[arg(long, value_name = "NAME", requires = "stream")]
    consumer: Option<String>,
    /// NATS: only messages of these subjects, such as orders.>
    #[arg(long, value_name = "SUBJECT", requires = "stream")]
    subject: Option<String>,
    /// AMQP: queue to read, which must exist
    #[arg(long, value_name = "NAME", conflicts_with = "stream")]
    queue: Option<String>,
    /// Messages in hand at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    in_hand: u16,
}

impl Forward {
    pub async fn run(self) -> Result<(), Failure> {
        let (client, source) = (session::connect()?, self.source()?);
        // A wrong name is told before anything is taken from the queue.
        client.function(&self.function).await?;
        let mut intake = Some(
            source
                .open(self.in_hand)
                .await
                .map_err(|error| Failure::usage(error.to_string()))?,
        );
        eprintln!("forwarding messages to {}; press Ctrl-C to stop", self.function);
        let stop = tokio::signal::ctrl_c();
        tokio::pin!(stop);
        let mut again = AGAIN_FIRST;
        loop {
            if let Some(intake) = intake.take() {
                again = AGAIN_FIRST;
                let ended = self.forward(&client, intake, &mut stop).await;
                match ended {
                    None => return Ok(()),
                    Some(error) => eprintln!("{error}; trying again"),
                }
            }
            tokio::select! {
                _ = &mut stop => return Ok(()),
                () = tokio::time::sleep(again) => {}
            }
            again = (again * 2).min(AGAIN_MAX);
            match source.open(self.in_hand).await {
                Ok(opened) => intake = Some(opened),
                Err(error) => eprintln!("{error}; trying again in {} s", again.as_secs()),
            }
        }
    }

    fn source(&self) -> Result<Source, Failure> {
        let url = self.from.clone();
        let scheme = url.split("://").next().unwrap_or_default();
        let needs = |option: &str| Failure::usage(format!("a queue at {scheme}://... needs {option} NAME"));
        match scheme {
            "nats" | "tls" => Ok(Source::Nats {
                stream: self.stream.clone().ok_or_else(|| needs("--stream"))?,
                consumer: self
                    .consumer
                    .clone()
                    .unwrap_or_else(|| format!("piecework-{}", self.function)),
                subject: self.subject.clone(),
                url,
            }),
            "amqp" | "amqps" => Ok(Source::Amqp {
                queue: self.queue.clone().ok_or_else(|| needs("--queue"))?,
                url,
            }),
            _ => Err(Failure::usage(
                "expected a URL that begins with nats://, tls://, amqp:// or amqps://",
            )),
        }
    }

    /// Until the queue is lost, which is told, or the user stops it: what is in hand by then is settled.
    async fn forward(
        &self,
        client: &Client,
        intake: Intake,
        stop: impl Future,
    ) -> Option<piecework_intake::IntakeError> {
        let lost = std::sync::Mutex::new(None);
        let taken = stream::unfold(intake, async |mut intake| match intake.next().await {
            Ok(message) => Some((message, intake)),
            Err(error) => {
                *lost.lock().expect("never poisoned") = Some(error);
                None
            }
        });
        let taken = taken.take_until(stop);
        let each = taken.for_each_concurrent(usize::from(self.in_hand), |message| self.hand_on(client, message));
        each.await;
        lost.into_inner().expect("never poisoned")
    }

    /// The job's idempotency key. No sender of one queue names a message of another, nor one that has no name.
    fn key(&self, id: &str, is_named: bool) -> String {
        let queue = self.stream.as_ref().or(self.queue.as_ref());
        format!(
            "queue/{}",
            Digest::of_value("piecework 2026 message", &(queue, is_named, id))
        )
    }

    async fn hand_on(&self, client: &Client, message: Message) {
        let name = message.id.as_ref().unwrap_or(&message.subject);
        // Others have written it, and it goes to a terminal.
        let name = name.escape_debug().to_string();
        let key = message.id.as_deref().map(|id| self.key(id, message.is_named));
        let body = Execute {
            input: event(&self.function, &message),
            parameters: None,
        };
        let verdict = match client.execute_async(&self.function, &body, key.as_deref()).await {
            Ok(_) => Verdict::Accepted,
            Err(error) => {
                let verdict = verdict_of(&error);
                match verdict {
                    Verdict::Never => eprintln!("message {name} is refused for good: {error}"),
                    _ => eprintln!("message {name} is tried again later: {error}"),
                }
                verdict
            }
        };
        if let Err(error) = message.settle(verdict).await {
            eprintln!("message {name}: {error}; it comes again");
        }
    }
}

/// A message that itself cannot be taken never comes again; everything else may pass.
fn verdict_of(error: &ClientError) -> Verdict {
    match error {
        ClientError::Refused { refusal, .. } => match refusal.code.known() {
            Some(Code::BodyTooLarge | Code::BodyMalformed | Code::IdempotencyConflict | Code::IdempotencyBadKey) => {
                Verdict::Never
            }
            _ => Verdict::Later(LATER),
        },
        _ => Verdict::Later(LATER),
    }
}

/// What the function gets: the same at each delivery, since its job is found again by key and input.
fn event(function: &str, message: &Message) -> Box<RawValue> {
    let text = std::str::from_utf8(&message.body).ok();
    let body = text.map(|text| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())));
    let mut event = json!({
        "trigger": "queue",
        "function": function,
        "id": message.id,
        "subject": message.subject,
        "headers": message.headers.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "body": body,
    });
    if text.is_none() {
        event["body_base64"] = BASE64_STANDARD.encode(&message.body).into();
    }
    serde_json::value::to_raw_value(&event).expect("a value is JSON")
}
