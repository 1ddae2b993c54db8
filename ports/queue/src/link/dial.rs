//! Reaches a controller by WebSocket, and keeps reaching it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use piecework_model::{PublicKey, Rejection};
use rand::RngExt as _;
use tokio::time::timeout;
use tokio_tungstenite::connect_async_with_config;
use tokio_util::sync::CancellationToken;

use super::{Agent, LinkFailure, Wire, socket};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const BACK_OFF_MIN: Duration = Duration::from_millis(250);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// A session that lasted this long was a good one: the next attempt comes soon.
const GOOD_SESSION: Duration = Duration::from_secs(2);

/// What happens to a link, for whoever shows it.
#[derive(Debug)]
pub enum Event<'a> {
    Dialing {
        url: &'a str,
    },
    Ended {
        url: &'a str,
        failure: &'a LinkFailure,
        /// `None`: not dialled any more.
        again_in: Option<Duration>,
    },
}

/// Opens a WebSocket to `url` (`ws://` or `wss://`). TLS trusts the system's certificates.
pub async fn dial(url: &str) -> Result<Wire, LinkFailure> {
    let connected = timeout(
        CONNECT_TIMEOUT,
        connect_async_with_config(url, Some(socket::config()), true),
    )
    .await;
    let (connection, _) = connected
        .map_err(|_| LinkFailure::Broken("no answer within 10 s".into()))?
        .map_err(|error| LinkFailure::Broken(error.to_string()))?;
    Ok(socket::wire(connection))
}

/// Keeps a link to one of `urls` up until `shutdown`: the first that answers, with back-off and jitter between rounds.
/// One that refuses so that trying again cannot change it is left out from then on; the last one's refusal is returned.
/// `trusts` is asked whether the key is the one to work for at that URL.
pub async fn keep_linked(
    agent: Arc<Agent>,
    urls: Vec<String>,
    trusts: impl Fn(&str, PublicKey) -> Result<(), Rejection> + Send + Sync,
    now_ms: impl Fn() -> u64,
    mut tell: impl FnMut(Event<'_>),
    shutdown: CancellationToken,
) -> Result<(), LinkFailure> {
    let mut back_off = BACK_OFF_MIN;
    let mut urls = VecDeque::from(urls);
    while let Some(url) = urls.pop_front() {
        tell(Event::Dialing { url: &url });
        let trusts = |key| trusts(&url, key);
        let began = tokio::time::Instant::now();
        let failure = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            failure = async {
                match dial(&url).await {
                    Ok(wire) => agent.session(wire, &trusts, &now_ms).await,
                    Err(failure) => failure,
                }
            } => failure,
        };
        if failure.is_final() {
            if urls.is_empty() {
                return Err(failure);
            }
            tell(Event::Ended {
                url: &url,
                failure: &failure,
                again_in: None,
            });
            continue;
        }
        back_off = match began.elapsed() > GOOD_SESSION {
            true => BACK_OFF_MIN,
            false => (back_off * 2).min(BACK_OFF_MAX),
        };
        let again_in = back_off.mul_f64(rand::rng().random_range(0.5..1.0));
        tell(Event::Ended {
            url: &url,
            failure: &failure,
            again_in: Some(again_in),
        });
        urls.push_back(url);
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(again_in) => {}
        }
    }
    Ok(())
}
