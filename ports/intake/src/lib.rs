//! Takes messages from queues of others: NATS JetStream and AMQP 0-9-1.
//!
//! ```text
//! open -> next -> Message -> settle: accepted, later or never
//! ```
//!
//! A message that is not settled comes again once the connection has ended, so each is delivered at least once.

#[cfg(feature = "amqp")]
mod amqp;
#[cfg(feature = "nats")]
mod nats;

use std::time::Duration;

use bytes::Bytes;

/// Which queue, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A consumer of a JetStream stream, made if it is not there.
    Nats {
        /// `nats://[USER:PASSWORD@]HOST[:PORT]`, or `tls://`.
        url: String,
        stream: String,
        /// Those who name the same consumer share its messages.
        consumer: String,
        /// Only messages of these subjects, which may have wildcards.
        subject: Option<String>,
    },
    /// A queue that is there already.
    Amqp {
        /// `amqp://[USER:PASSWORD@]HOST[:PORT][/VHOST]`, or `amqps://`.
        url: String,
        queue: String,
    },
}

/// A message that has been taken and not settled.
pub struct Message {
    /// Subject or routing key.
    pub subject: String,
    /// What names this message at each delivery: its own id, else its place in the stream. An AMQP message that has no id has none.
    pub id: Option<String>,
    /// Whether its sender gave it the id.
    pub is_named: bool,
    /// Whether it may have been taken before.
    pub redelivered: bool,
    /// In no order; of AMQP those that are text or numbers.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    ticket: Ticket,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is safe elsewhere.
    Accepted,
    /// It comes again, not before this time has passed.
    Later(Duration),
    /// It never comes again; AMQP gives it to the queue's dead letter exchange, if there is one.
    Never,
}

/// Why a queue gives no message.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct IntakeError {
    what: &'static str,
    reason: String,
}

/// An open queue.
pub struct Intake(Kind);

enum Kind {
    #[cfg(feature = "nats")]
    Nats(Box<nats::Consumer>),
    #[cfg(feature = "amqp")]
    Amqp(amqp::Consumer),
}

enum Ticket {
    #[cfg(feature = "nats")]
    Nats(nats::Ticket),
    #[cfg(feature = "amqp")]
    Amqp(amqp::Ticket),
}

impl Source {
    /// Opens it. At most `in_hand` messages are taken and not settled at a time.
    pub async fn open(&self, in_hand: u16) -> Result<Intake, IntakeError> {
        let kind = match self {
            #[cfg(feature = "nats")]
            Self::Nats {
                url,
                stream,
                consumer,
                subject,
            } => Kind::Nats(Box::new(
                nats::open(url, (stream, consumer, subject.as_deref()), in_hand).await?,
            )),
            #[cfg(feature = "amqp")]
            Self::Amqp { url, queue } => Kind::Amqp(amqp::open(url, queue, in_hand).await?),
            #[cfg(not(all(feature = "nats", feature = "amqp")))]
            _ => return Err(failed("open the queue")("this program was built without it")),
        };
        Ok(Intake(kind))
    }
}

impl Intake {
    /// Waits for the next message. After an error the queue has to be opened again. Cancel safe.
    pub async fn next(&mut self) -> Result<Message, IntakeError> {
        match &mut self.0 {
            #[cfg(feature = "nats")]
            Kind::Nats(consumer) => consumer.next().await,
            #[cfg(feature = "amqp")]
            Kind::Amqp(consumer) => consumer.next().await,
        }
    }
}

impl Message {
    /// Returns when the server has been told; after an error the message comes again.
    pub async fn settle(self, verdict: Verdict) -> Result<(), IntakeError> {
        match self.ticket {
            #[cfg(feature = "nats")]
            Ticket::Nats(ticket) => ticket.settle(verdict).await,
            #[cfg(feature = "amqp")]
            Ticket::Amqp(ticket) => ticket.settle(verdict).await,
        }
    }
}

/// `error.map_err(failed("read the queue"))`.
fn failed<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> IntakeError {
    move |error| IntakeError {
        what,
        reason: error.to_string(),
    }
}
