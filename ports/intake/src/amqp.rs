//! AMQP 0-9-1, as RabbitMQ speaks it.

use std::time::Duration;

use amqprs::{
    FieldTable, FieldValue,
    channel::{
        BasicAckArguments, BasicConsumeArguments, BasicNackArguments, BasicQosArguments, Channel, ConsumerMessage,
    },
    connection::{Connection, OpenConnectionArguments},
};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::{IntakeError, Message, Verdict, failed};

/// The server closes a connection on which it hears nothing for two of these.
const HEARTBEAT_S: u16 = 20;

pub(crate) struct Consumer {
    /// It ends with the consumer.
    connection: Connection,
    channel: Channel,
    /// Bounded by the prefetch count.
    messages: UnboundedReceiver<ConsumerMessage>,
}

pub(crate) struct Ticket {
    channel: Channel,
    tag: u64,
}

pub(crate) async fn open(url: &str, queue: &str, in_hand: u16) -> Result<Consumer, IntakeError> {
    let mut options = OpenConnectionArguments::try_from(url).map_err(failed("read the URL"))?;
    options.heartbeat(HEARTBEAT_S).connection_name("piecework");
    let connection = Connection::open(&options)
        .await
        .map_err(failed("connect to the broker"))?;
    let channel = connection.open_channel(None).await.map_err(failed("open a channel"))?;
    let prefetch = BasicQosArguments::new(0, in_hand, false);
    channel
        .basic_qos(prefetch)
        .await
        .map_err(failed("bound the prefetch"))?;
    let consume = BasicConsumeArguments::new(queue, "").manual_ack(true).finish();
    let (_, messages) = channel
        .basic_consume_rx(consume)
        .await
        .map_err(failed("read the queue"))?;
    Ok(Consumer {
        connection,
        channel,
        messages,
    })
}

impl Consumer {
    pub(crate) async fn next(&mut self) -> Result<Message, IntakeError> {
        loop {
            let lost = self.connection.listen_network_io_failure();
            let received = tokio::select! {
                received = self.messages.recv() => received,
                _ = lost => None,
            };
            let received = received
                .ok_or("the connection or the queue is gone")
                .map_err(failed("read the queue"))?;
            // The end of the channel comes as a message without parts.
            if let (Some(deliver), Some(properties), Some(body)) =
                (received.deliver, received.basic_properties, received.content)
            {
                return Ok(Message {
                    subject: deliver.routing_key().clone(),
                    id: properties.message_id().cloned(),
                    is_named: properties.message_id().is_some(),
                    redelivered: deliver.redelivered(),
                    headers: properties.headers().map(listed).unwrap_or_default(),
                    body: body.into(),
                    ticket: crate::Ticket::Amqp(Ticket {
                        channel: self.channel.clone(),
                        tag: deliver.delivery_tag(),
                    }),
                });
            }
        }
    }
}

fn listed(headers: &FieldTable) -> Vec<(String, String)> {
    let text = |value: &FieldValue| match value {
        FieldValue::S(text) => Some(text.to_string()),
        FieldValue::t(value) => Some(value.to_string()),
        FieldValue::I(number) => Some(number.to_string()),
        FieldValue::l(number) => Some(number.to_string()),
        FieldValue::d(number) => Some(number.to_string()),
        _ => None,
    };
    let table: &std::collections::HashMap<_, _> = headers.as_ref();
    let each = table.iter();
    each.filter_map(|(name, value)| Some((name.to_string(), text(value)?)))
        .collect()
}

impl Ticket {
    pub(crate) async fn settle(self, verdict: Verdict) -> Result<(), IntakeError> {
        let (channel, tag) = (self.channel, self.tag);
        let settled = match verdict {
            Verdict::Accepted => channel.basic_ack(BasicAckArguments::new(tag, false)).await,
            // The protocol knows no delay: it is held here, among those in hand.
            Verdict::Later(after) => {
                tokio::time::sleep(after.min(Duration::from_secs(60))).await;
                channel.basic_nack(BasicNackArguments::new(tag, false, true)).await
            }
            Verdict::Never => channel.basic_nack(BasicNackArguments::new(tag, false, false)).await,
        };
        settled.map_err(failed("settle a message"))
    }
}
