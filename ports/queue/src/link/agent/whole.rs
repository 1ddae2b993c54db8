//! A session of version 2: one ordered stream of frames. Functions that stream are stopped at their first part.

use std::{pin::pin, sync::Arc};

use tokio::sync::mpsc;

use super::{Agent, Outgoing, Terms};
use crate::link::{
    BEAT, Clock, LinkFailure,
    frames::{OrderId, ToController, ToProvider},
    handshake::Welcome,
    secure::{Receiver, Sender},
};

pub(super) async fn session(agent: &Arc<Agent>, welcome: Welcome) -> LinkFailure {
    let clock = welcome.receiver.clock.clone();
    let (outgoing, frames) = mpsc::unbounded_channel();
    let before = agent.begin(&Outgoing::Whole(outgoing.clone()), welcome.controller, clock.clone());
    for (id, result) in before {
        if let Some(result) = result {
            // Its other end is in this function.
            let _ = outgoing.send(ToController::Done(id, Box::new(Result::clone(&result))));
        }
    }
    tokio::select! {
        failure = send_all(agent, welcome.sender, frames, clock) => failure,
        failure = receive_all(agent, welcome.receiver, &outgoing) => failure,
    }
}

async fn send_all(
    agent: &Agent,
    mut sender: Sender,
    mut frames: mpsc::UnboundedReceiver<ToController>,
    clock: Clock,
) -> LinkFailure {
    let mut beat = pin!(clock.sleep(std::time::Duration::ZERO));
    loop {
        let frame = tokio::select! {
            Some(frame) = frames.recv() => frame,
            () = &mut beat => {
                beat.set(clock.sleep(BEAT));
                beat_of(agent)
            }
            () = agent.provider.changed() => beat_of(agent),
        };
        if let Err(failure) = sender.send(&frame).await {
            return failure;
        }
    }
}

fn beat_of(agent: &Agent) -> ToController {
    let (load, warm) = agent.beat();
    ToController::Beat { load, warm }
}

async fn receive_all(
    agent: &Arc<Agent>,
    mut receiver: Receiver,
    outgoing: &mpsc::UnboundedSender<ToController>,
) -> LinkFailure {
    loop {
        match receiver.receive().await {
            Ok(frame) => take(agent, frame, outgoing),
            Err(failure) => return failure,
        }
    }
}

fn take(agent: &Arc<Agent>, frame: ToProvider, outgoing: &mpsc::UnboundedSender<ToController>) {
    match frame {
        ToProvider::Order(order) => {
            let id = OrderId::of(&order.ticket);
            let (run, begins) = agent.take((*order, Terms::default()), None, false);
            if let (false, Some(result)) = (begins, run.result()) {
                // A session that is ending.
                let _ = outgoing.send(ToController::Done(id, Box::new(Result::clone(&result))));
            }
        }
        ToProvider::Cancel(id) => agent.cancel(id),
        ToProvider::Confirm(id) => agent.confirm(id),
        ToProvider::Ask(id, ask) => {
            let (agent, outgoing) = (agent.clone(), outgoing.clone());
            tokio::spawn(async move {
                let answer = agent.answer(*ask).await;
                // The session has ended: it is asked again in the next one.
                let _ = outgoing.send(ToController::Answer(id, Box::new(answer)));
            });
        }
        ToProvider::Forget(function, version) => agent.provider.forget(function, version),
        ToProvider::Chunk { fetch, total, bytes } => agent.fetcher.take_piece(fetch, total, bytes),
        ToProvider::Beat => {}
    }
}
