//! `piecework up`: controller, peer and provider in one process.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Instant,
};

use tokio::signal::unix::{Signal, SignalKind, signal};

use piecework_model::{EgressPolicy, Network};
use piecework_scheduler::Policy;

use crate::{
    compose,
    failure::Failure,
    places,
    settings::{AcmeSettings, AlertSettings, TlsSettings},
    units,
};

/// Run controller, ledger peer and provider in one process
#[derive(Debug, clap::Args)]
pub struct Up {
    /// Data directory [default: piecework in the user's data directory]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Listen address; port 0 picks a free port
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7433", value_parser = units::address)]
    pub listen: SocketAddr,
    /// Public URL, if different from the listen address: the base of the links that are given out
    #[arg(long, value_name = "URL", value_parser = units::base_url)]
    pub url: Option<String>,
    /// Serve HTTPS with this certificate chain, a file in PEM; it is read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Key of the certificate, a file in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Serve HTTPS with a certificate for this name, which is obtained and renewed by ACME; port 443 of the name must lead to
    /// this server. You agree to the authority's terms. May be repeated
    #[arg(long, value_name = "DOMAIN", value_parser = units::domain, conflicts_with = "tls_cert")]
    pub acme: Vec<String>,
    /// Directory of the ACME authority [default: Let's Encrypt]
    #[arg(long, value_name = "URL", value_parser = units::https_url, requires = "acme")]
    pub acme_directory: Option<String>,
    /// Mail address to which the authority may write; may be repeated
    #[arg(long, value_name = "EMAIL", value_parser = units::mail, requires = "acme")]
    pub acme_contact: Vec<String>,
    /// Run no jobs on this machine; leave them to computers that join with `piecework provide`
    #[arg(long)]
    pub no_provider: bool,
    /// Private network, like 10.0.0.0/8, that functions may reach if their allow list names it; may be repeated
    #[arg(long, value_name = "NETWORK", value_parser = units::noun::<Network>)]
    pub egress_to: Vec<Network>,
    /// Private network, like 10.0.0.0/8, that results may be sent to; may be repeated
    #[arg(long, value_name = "NETWORK", value_parser = units::noun::<Network>)]
    pub results_to: Vec<Network>,
    /// Address of a reverse proxy in front: limits per address then apply to the addresses that it names in
    /// X-Forwarded-For; may be repeated
    #[arg(long, value_name = "ADDR")]
    pub proxy: Vec<IpAddr>,
    /// URL to which alerts are posted as JSON: budgets 80 % spent, a stalled ledger, low disk space, a
    /// certificate that cannot be renewed, quarantined functions
    #[arg(long, value_name = "URL")]
    pub alert_webhook: Option<String>,
    /// File with the secret that signs what is posted
    #[arg(long, value_name = "FILE", requires = "alert_webhook")]
    pub alert_secret_file: Option<PathBuf>,
    /// Command that gets each alert as a mail on standard input, like 'sendmail ops@example.org'
    #[arg(long, value_name = "COMMAND")]
    pub alert_command: Option<String>,
    /// Refuse functions that need the network
    #[arg(long, conflicts_with = "egress_to")]
    pub no_egress: bool,
    /// Default policy for choosing a provider: random, least-loaded, warm-first or cheapest
    #[arg(long, value_name = "POLICY", default_value = "warm-first", value_parser = units::noun::<Policy>)]
    pub policy: Policy,
}

impl Up {
    /// Prints `ready URL` on standard output once a call would succeed; progress and logs go to standard error.
    pub async fn run(self) -> Result<(), Failure> {
        let is_default = self.data.is_none();
        let directory = match self.data {
            Some(directory) => directory,
            None => places::default_data_dir().map_err(Failure::Local)?,
        };
        let began = Instant::now();
        let say = |what: &str| eprintln!("[{:5.1} s] {what}", began.elapsed().as_secs_f64());
        let acme =
            (!self.acme.is_empty()).then(|| AcmeSettings::new(self.acme, self.acme_directory, self.acme_contact));
        if let Some(acme) = &acme {
            acme.check()?;
        }
        let settings = compose::Settings {
            listen: self.listen,
            url: self.url,
            tls: self
                .tls_cert
                .zip(self.tls_key)
                .map(|(certificate, key)| TlsSettings { certificate, key }),
            acme,
            provides: !self.no_provider,
            policy: self.policy,
            egress: (!self.no_egress).then_some(EgressPolicy {
                private: self.egress_to,
            }),
            results_to: self.results_to,
            proxies: self.proxy,
            alerts: AlertSettings {
                webhook: self.alert_webhook,
                secret_file: self.alert_secret_file,
                command: self.alert_command,
            },
        };
        let machine = compose::machine(&directory, settings, &say)
            .await
            .map_err(Failure::Local)?;
        say(&format!("state in {}", directory.display()));
        let stop = stopped();
        eprint!("{}", next_steps(&machine.url, (!is_default).then_some(&*directory)));
        println!("ready {}", machine.url);
        machine.serve(stop).await.map_err(Failure::Local)?;
        eprintln!("stopped; all state is in {}", directory.display());
        Ok(())
    }
}

/// What to type in another terminal. The command line finds a server in the default directory by itself.
fn next_steps(url: &str, directory: Option<&Path>) -> String {
    let log_in = match directory {
        Some(directory) => format!(
            "export PIECEWORK_URL={url} PIECEWORK_TOKEN=$(cat {}/token)\n  ",
            directory.display()
        ),
        None => String::new(),
    };
    format!(
        "\nIn another terminal:\n\n  \
         {log_in}piecework new hello --language python\n  \
         piecework deploy hello\n  \
         piecework call hello '{{\"name\": \"you\"}}'\n\n\
         Press Ctrl-C here to stop.\n\n"
    )
}

/// Resolves at Ctrl-C or a polite kill, both of which are heard from this call on: make it before `ready` is said,
/// since whoever reads that may stop what runs at once.
pub fn stopped() -> impl Future<Output = ()> {
    let interrupted = signal(SignalKind::interrupt());
    let terminated = signal(SignalKind::terminate());
    async {
        tokio::select! {
            () = arrived(interrupted) => {}
            () = arrived(terminated) => {}
        }
    }
}

/// One that cannot be heard never arrives; the other still can.
async fn arrived(signal: io::Result<Signal>) {
    match signal {
        Ok(mut signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    }
}
