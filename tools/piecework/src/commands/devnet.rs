//! `piecework devnet`: a whole network on this machine, each role in a process of its own.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Instant,
};

use crate::{
    commands::up::stopped,
    compose::{self, Answers, Wanted},
    failure::Failure,
    places,
};

/// Run a whole network on this machine, one process per ledger peer, controller and provider
#[derive(Debug, clap::Args)]
pub struct Devnet {
    /// Number of ledger peers; 4 tolerate the loss of one [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    peers: Option<u16>,
    /// Number of providers [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=16))]
    providers: Option<u16>,
    /// Data directory [default: piecework-devnet in the user's data directory]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Listen address of the controller; port 0 picks a free port [default: 127.0.0.1:7433]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
}

impl Devnet {
    /// Prints `ready URL` on standard output once a call would succeed; progress goes to standard error, what the
    /// processes say to DIR/logs.
    pub async fn run(self) -> Result<(), Failure> {
        let directory = match self.data {
            Some(directory) => directory,
            None => places::default_role_dir("devnet")?,
        };
        let wanted = Wanted {
            peers: self.peers,
            providers: self.providers,
            listen: self.listen,
        };
        let began = Instant::now();
        let say = |what: &str| eprintln!("[{:5.1} s] {what}", began.elapsed().as_secs_f64());
        let ready = |answers: Answers<'_>| {
            say("ready; press Ctrl-C to stop everything");
            eprint!("{}", next_steps(&directory, &answers));
            println!("ready {}", answers.controller);
        };
        compose::devnet(&directory, wanted, &say, ready, stopped()).await?;
        eprintln!("stopped; all state is in {}", directory.display());
        Ok(())
    }
}

/// Where things are, and what to type in another terminal.
fn next_steps(directory: &Path, answers: &Answers<'_>) -> String {
    let (directory, url) = (directory.display(), answers.controller);
    format!(
        "\n  controller   {url}\n  ledger       {}\n  processes    {directory}/processes.json (logs in {directory}/logs)\n\n\
         In another terminal:\n\n  \
         export PIECEWORK_URL={url} PIECEWORK_TOKEN=$(cat {directory}/token)\n  \
         piecework new hello --language python\n  \
         piecework deploy hello\n  \
         piecework call hello '{{\"name\": \"you\"}}'\n  \
         piecework ledger status\n\n",
        answers.peers.join("\n               ")
    )
}
