//! Commands while too few peers answer: they say that they wait, and run again they take effect once.

use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use piecework_model::Code;

use crate::{
    command_line::command,
    network::processes::{Devnet, WITHIN},
};

/// Longer than a command needs to send what it has signed; it is ended before it hears anything.
const SENT_WITHIN: Duration = Duration::from_secs(2);

struct Terminal<'a> {
    home: &'a Path,
    network: &'a Devnet,
    token: Option<String>,
}

impl<'a> Terminal<'a> {
    /// Who is logged in there.
    fn of_ada(home: &'a Path, network: &'a Devnet) -> Self {
        let token = None;
        Self { home, network, token }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(self.home);
        if let Some(token) = &self.token {
            command
                .env("PIECEWORK_URL", &self.network.machine.url)
                .env("PIECEWORK_TOKEN", token);
        }
        command.args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("it runs")
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Stops it, as a user does who does not want to wait any longer.
    async fn interrupted(&self, arguments: &[&str]) {
        let mut command = self.command(arguments);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child: Child = child.expect("it starts");
        let began = Instant::now();
        while began.elapsed() < SENT_WITHIN {
            let ended = child.try_wait().expect("asked");
            assert!(ended.is_none(), "{arguments:?} ended: {ended:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_signed_here_and_run_again_after_a_stall_takes_effect_once() {
    let mut network = Devnet::start(4, 1).await;
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("ada.key").display().to_string();
    let url = network.machine.url.clone();
    let operators = Terminal {
        home: folder.path(),
        network: &network,
        token: Some(network.machine.token.clone()),
    };
    let invite = operators.ok(&["invite", "--grant", "5cr"]);
    let adas = Terminal::of_ada(folder.path(), &network);
    adas.ok(&["login", &url, "--name", "ada", "--key", &key, "--invite", invite.trim()]);
    adas.ok(&["leases", "open", "1cr", "--key", &key]);
    let deadline = Instant::now() + WITHIN;
    while network.machine.posted("ada").await != 5_000_000 {
        assert!(Instant::now() < deadline, "the grant comes");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    network.kill("peer-3").await;
    network.kill("peer-4").await;

    let transfer = ["transfer", "operator", "1cr", "--key", &key];
    Terminal::of_ada(folder.path(), &network).interrupted(&transfer).await;
    let owner = Terminal {
        home: folder.path(),
        network: &network,
        token: Some(network.machine.token.clone()),
    };
    let lend = owner.run(&["lend", "ada", "2cr"]);
    let said = String::from_utf8_lossy(&lend.stderr).into_owned();
    assert_eq!(lend.status.code(), Some(3), "{said}");
    assert!(said.starts_with(Code::TransactionQueued.as_str()), "{said}");
    assert!(said.contains("final when 3 of 4 peers answer"), "{said}");

    network.start_again("peer-3");
    network.start_again("peer-4");
    let deadline = Instant::now() + WITHIN;
    loop {
        let output = Terminal::of_ada(folder.path(), &network).run(&transfer);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            assert!(said.contains("an earlier run of this command got no answer"), "{said}");
            break;
        }
        assert!(Instant::now() < deadline, "{said}");
    }
    assert_eq!(network.machine.posted("ada").await, 4_000_000);
    // Another run is another transfer.
    Terminal::of_ada(folder.path(), &network).ok(&transfer);
    assert_eq!(network.machine.posted("ada").await, 3_000_000);
    let deadline = Instant::now() + WITHIN;
    while network.machine.get("/accounts/ada").await.ok()["limit_ucr"] != 2_000_000 {
        assert!(Instant::now() < deadline, "the loan is set by itself");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
