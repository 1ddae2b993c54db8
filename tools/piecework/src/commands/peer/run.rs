//! `piecework peer run`: a ledger peer and its API.

use std::time::Instant;

use super::Place;
use crate::{commands::up::stopped, compose, failure::Failure};

/// Run the peer
#[derive(Debug, clap::Args)]
pub struct Run {
    #[command(flatten)]
    place: Place,
}

impl Run {
    /// Prints `ready URL` on standard output once the ledger answers; progress and logs go to standard error.
    pub async fn run(self) -> Result<(), Failure> {
        let (directory, settings) = (self.place.directory()?, self.place.settings()?);
        let began = Instant::now();
        let say = |what: &str| eprintln!("[{:5.1} s] {what}", began.elapsed().as_secs_f64());
        say("starting the ledger");
        let peer = compose::peer(&directory, &settings, &say).await?;
        say(&format!("the API is at {}; waiting for the other peers", peer.url));
        let ready = |url: &str| println!("ready {url}");
        peer.serve(ready, stopped()).await?;
        eprintln!("stopped; all state is in {}", directory.display());
        Ok(())
    }
}
