//! This computer as a provider of controllers elsewhere: it joins with an account of its own, remembers whom it works for,
//! and leaves without losing a job.
//!
//! ```text
//! a controller that answers -> account (invite) -> offer on the ledger -> link -> jobs -> drained
//! ```

mod bundles;
mod home;
mod joining;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use piecework_api::{Client, ClientError};
use piecework_model::Rejection;
use piecework_queue::link::{Agent, Event, LinkFailure};

pub use bundles::Pulled;
pub use home::{Home, write_private};
pub use joining::{Newcomer, OwnersWord, enrol, offer, publish};

use crate::Provider;

/// Told what happens, for the person at this computer.
pub type Say = dyn Fn(&str) + Send + Sync;

/// Why this computer does not provide.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Asked(#[from] ClientError),
    #[error("no controller answers; is the address right, and is the controller running?")]
    NoController,
    #[error(
        "this computer joined without --mine, which cannot be changed; join again with another --data directory and a new invite"
    )]
    JoinedWithoutOwner,
    #[error("this computer belongs to nobody: it joined without --mine")]
    NoOwner(#[source] io::Error),
    #[error("cannot confirm the owner of this computer")]
    Owner(#[source] ClientError),
    #[error("cannot create the account")]
    Account(#[source] ClientError),
    #[error(
        "another account has the name `{0}`; add --name with a name of this computer's own. If this computer joined before, use its --data directory, which holds its key"
    )]
    NameTaken(String),
    #[error("the account is there, but it has no credits for the offer's deposit, and the invite cannot be accepted")]
    Invite(#[source] ClientError),
    #[error(
        "the offer was refused; its deposit comes from the credits of the invite (`piecework invite --role provider`)"
    )]
    Offer(#[source] ClientError),
    #[error("the controller did not send a valid genesis file")]
    NoGenesis(#[source] serde_json::Error),
    #[error("the controller sent the genesis file of another network")]
    OtherGenesis,
    #[error("{} is not a genesis file", .0.display())]
    NotAGenesis(PathBuf, #[source] serde_json::Error),
    #[error("{} belongs to another network; use another --data directory for this one", .0.display())]
    OtherNetwork(PathBuf),
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("cannot write {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
    #[error(transparent)]
    Malformed(#[from] Rejection),
}

/// The client of the first controller that answers; a provider that has joined before (`is_patient`) waits until one does.
pub async fn answering(urls: &[String], is_patient: bool, say: &Say) -> Result<Client, Failure> {
    const AGAIN_AFTER: Duration = Duration::from_secs(10);
    loop {
        match reachable(urls, say).await {
            Err(_) if is_patient => {
                say("no controller answers; trying again in 10 s; unpaid jobs are claimed meanwhile")
            }
            answered => return answered,
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

async fn reachable(urls: &[String], say: &Say) -> Result<Client, Failure> {
    for url in urls {
        let client = Client::new(url, None)?;
        match client.health().await {
            Ok(_) => return Ok(client),
            Err(error) => say(&format!("{url}: {error}")),
        }
    }
    Err(Failure::NoController)
}

/// `http` becomes `ws`, `https` becomes `wss`.
pub fn link_url(url: &str) -> String {
    let base = url.trim_end_matches('/');
    format!(
        "ws{}{}",
        base.strip_prefix("http").unwrap_or(base),
        piecework_api::routes::LINK
    )
}

/// What a person is told of a link's end; nothing of the rest.
pub fn told(event: &Event<'_>) -> Option<String> {
    let Event::Ended { url, failure, again_in } = event else {
        return None;
    };
    let mut hint = String::new();
    if let LinkFailure::Refused(Rejection { hint: Some(said), .. }) = failure {
        hint = format!(" ({said})");
    }
    let next = match again_in {
        Some(again_in) => format!("trying again in {:.1} s", again_in.as_secs_f64()),
        None => "not trying it again".to_owned(),
    };
    Some(format!("{url}: {failure}{hint}; {next}"))
}

/// Calls `up` each time that a link comes up.
pub async fn watch(agent: Arc<Agent>, mut up: impl FnMut()) {
    let mut linked = agent.linked_to();
    // It may have come up before this was asked.
    linked.mark_changed();
    while linked.changed().await.is_ok() {
        if linked.borrow_and_update().is_some() {
            up();
        }
    }
}

/// After `stop`: no new jobs, the running ones end and are delivered.
pub async fn drained(provider: &Provider, agent: &Agent, stop: impl Future<Output = ()>, say: &Say) {
    const PATIENCE: Duration = Duration::from_secs(30);
    const POLL: Duration = Duration::from_millis(50);
    /// A controller settles every half second.
    const SEALED_WITHIN: Duration = Duration::from_secs(5);
    stop.await;
    provider.drain();
    if agent.orders() > 0 {
        say(&format!("waiting for {} running jobs", agent.orders()));
    }
    let all_done = async {
        while agent.orders() > 0 {
            tokio::time::sleep(POLL).await;
        }
    };
    if tokio::time::timeout(PATIENCE, all_done).await.is_err() {
        say("some jobs did not finish; the controller orders them elsewhere");
    }
    // Only this provider can seal its receipts, and only what is sealed is paid.
    let all_sealed = async {
        while provider.unsealed() > 0 && agent.linked_to().borrow().is_some() {
            tokio::time::sleep(POLL).await;
        }
    };
    if tokio::time::timeout(SEALED_WITHIN, all_sealed).await.is_err() {
        say(&format!(
            "{} jobs are not paid yet; they are paid after the next start",
            provider.unsealed()
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_where_its_controller_is() {
        for (url, due) in [
            ("http://here:1", "ws://here:1/link"),
            ("https://there/", "wss://there/link"),
        ] {
            assert_eq!(link_url(url), due);
        }
    }
}
