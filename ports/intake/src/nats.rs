//! NATS JetStream: a durable pull consumer, by the API that it offers over plain NATS
//! (<https://docs.nats.io/reference/reference-protocols/nats_api_reference>).

use std::time::Duration;

use async_nats::{Client, HeaderMap, Subscriber, header};
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::{IntakeError, Message, Ticket as AnyTicket, Verdict, failed};

/// A message that is neither settled nor given back by then comes again: accepting a job takes milliseconds.
const ACK_WAIT: Duration = Duration::from_secs(60);
/// How long the server keeps a request for messages.
const PULL_EXPIRES: Duration = Duration::from_secs(20);
/// It says so when it is over: where it says nothing for this long, it is not there.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const NO_SUCH_CONSUMER: u64 = 10_014;
/// What a request for messages ends with when there are none, or not enough in time.
const NO_MORE: [u16; 2] = [404, 408];

pub(crate) struct Consumer {
    client: Client,
    /// `STREAM.CONSUMER`, as a part of subjects.
    place: String,
    inbox: String,
    messages: Subscriber,
    in_hand: u16,
    /// How many more may come of the request that is open.
    due: u16,
}

pub(crate) struct Ticket {
    client: Client,
    reply: async_nats::Subject,
}

/// `of`: stream, consumer and the subjects that are wanted.
pub(crate) async fn open(url: &str, of: (&str, &str, Option<&str>), in_hand: u16) -> Result<Consumer, IntakeError> {
    let (stream, name, subject) = of;
    for part in [stream, name] {
        if part.is_empty() || part.contains(['.', '*', '>', ' ']) {
            return Err(failed("open the consumer")(format!("`{part}` is not a name of NATS")));
        }
    }
    let client = async_nats::connect(url).await.map_err(failed("connect to NATS"))?;
    api(&client, &format!("STREAM.INFO.{stream}"), &Value::Null)
        .await?
        .map_err(|error| failed("find the stream")(told(&error)))?;
    let place = format!("{stream}.{name}");
    let there = api(&client, &format!("CONSUMER.INFO.{place}"), &Value::Null).await?;
    match there {
        // It keeps its settings: it is somebody's.
        Ok(_) => {}
        Err(error) if error["err_code"] == NO_SUCH_CONSUMER => {
            let config = json!({"stream_name": stream, "config": {
                "durable_name": name, "ack_policy": "explicit", "ack_wait": ACK_WAIT.as_nanos() as u64,
                "max_ack_pending": in_hand, "filter_subject": subject.unwrap_or_default()}});
            let made = api(&client, &format!("CONSUMER.DURABLE.CREATE.{place}"), &config).await?;
            made.map_err(|error| failed("create the consumer")(told(&error)))?;
        }
        Err(error) => return Err(failed("open the consumer")(told(&error))),
    }
    let inbox = client.new_inbox();
    let messages = client
        .subscribe(inbox.clone())
        .await
        .map_err(failed("read the stream"))?;
    Ok(Consumer {
        client,
        place,
        inbox,
        messages,
        in_hand,
        due: 0,
    })
}

/// One request to JetStream: its answer, or what it says is wrong.
async fn api(client: &Client, call: &str, body: &Value) -> Result<Result<Value, Value>, IntakeError> {
    let payload = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let answer = client.request(format!("$JS.API.{call}"), payload.into()).await;
    let answer = answer.map_err(failed("ask JetStream"))?;
    let mut value: Value = serde_json::from_slice(&answer.payload).map_err(failed("ask JetStream"))?;
    Ok(match value.get_mut("error").map(Value::take) {
        Some(error) => Err(error),
        None => Ok(value),
    })
}

fn told(error: &Value) -> String {
    error["description"].as_str().unwrap_or("it is refused").to_owned()
}

impl Consumer {
    /// Cancel safe: what was asked for comes to the next call.
    pub(crate) async fn next(&mut self) -> Result<Message, IntakeError> {
        loop {
            if self.due == 0 {
                self.pull().await?;
            }
            let next = tokio::time::timeout(SILENCE_MAX, self.messages.next()).await;
            let message = next
                .map_err(|_| failed("read the stream")("the server is silent"))?
                .ok_or_else(|| failed("read the stream")("the connection is gone"))?;
            match message.status {
                None => {
                    self.due -= 1;
                    return self.message(message);
                }
                // The request has ended without as many messages as it asked for.
                Some(status) if NO_MORE.contains(&status.as_u16()) => self.due = 0,
                Some(status) => {
                    let reason = message.description.unwrap_or_else(|| status.to_string());
                    return Err(failed("read the stream")(reason));
                }
            }
        }
    }

    async fn pull(&mut self) -> Result<(), IntakeError> {
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}", self.place);
        let body = json!({"batch": self.in_hand, "expires": PULL_EXPIRES.as_nanos() as u64}).to_string();
        let asked = self
            .client
            .publish_with_reply(subject, self.inbox.clone(), body.into())
            .await;
        asked.map_err(failed("read the stream"))?;
        self.due = self.in_hand;
        Ok(())
    }

    fn message(&self, message: async_nats::Message) -> Result<Message, IntakeError> {
        let place = message.reply.as_ref().and_then(|reply| place(reply));
        let (Some((delivered, sequence)), Some(reply)) = (place, message.reply) else {
            return Err(failed("read the stream")("a message has no place in it"));
        };
        let stream = self.place.split('.').next().unwrap_or_default();
        let headers = message.headers.unwrap_or_default();
        let own = headers.get(header::NATS_MESSAGE_ID).map(|id| id.as_str().to_owned());
        Ok(Message {
            subject: message.subject.to_string(),
            is_named: own.is_some(),
            id: Some(own.unwrap_or_else(|| format!("{stream}/{sequence}"))),
            redelivered: delivered > 1,
            headers: listed(&headers),
            body: message.payload,
            ticket: AnyTicket::Nats(Ticket {
                client: self.client.clone(),
                reply,
            }),
        })
    }
}

/// How often it was delivered, and its place in the stream: of `$JS.ACK.[DOMAIN.ACCOUNT.]STREAM.CONSUMER.DELIVERED.SEQUENCE...`.
fn place(reply: &str) -> Option<(u64, u64)> {
    let parts: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
    let from = if parts.len() == 7 { 2 } else { 4 };
    Some((parts.get(from)?.parse().ok()?, parts.get(from + 1)?.parse().ok()?))
}

fn listed(headers: &HeaderMap) -> Vec<(String, String)> {
    let each = headers.iter().flat_map(|(name, values)| {
        let name = name.to_string();
        values
            .iter()
            .map(move |value| (name.clone(), value.as_str().to_owned()))
    });
    each.collect()
}

impl Ticket {
    pub(crate) async fn settle(self, verdict: Verdict) -> Result<(), IntakeError> {
        let said = match verdict {
            Verdict::Accepted => "+ACK".to_owned(),
            Verdict::Later(after) => format!("-NAK {{\"delay\": {}}}", after.as_nanos()),
            Verdict::Never => "+TERM".to_owned(),
        };
        // Confirmed by the server: a lost word would bring the message again.
        let confirmed = self.client.request(self.reply, said.into()).await;
        confirmed.map(drop).map_err(failed("settle a message"))
    }
}
