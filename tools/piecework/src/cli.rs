//! The commands and their options; `run` dispatches to the command's own file.

use clap::{Parser, Subcommand};

use crate::{commands::*, failure::Failure};

/// Run serverless functions on anyone's computer, and pay for each run on an open ledger.
#[derive(Debug, Parser)]
#[command(
    name = "piecework",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    term_width = 100
)]
#[command(
    after_help = "Exit codes: 0 done, 1 the function failed, 2 wrong usage, 3 refused, 4 no connection.\n\
    PIECEWORK_URL and PIECEWORK_TOKEN override the login.\n\
    --log-format json (or PIECEWORK_LOG_FORMAT=json) writes the log as JSON, one object per line; RUST_LOG sets its level."
)]
pub struct Cli {
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    pub json: bool,
    /// Format of the log on standard error
    #[arg(
        long,
        global = true,
        hide = true,
        value_name = "FORMAT",
        default_value = "text",
        env = "PIECEWORK_LOG_FORMAT"
    )]
    pub log_format: LogFormat,
    /// Die with this process, which is the parent
    #[cfg(target_os = "linux")]
    #[arg(long, value_name = "PID", hide = true)]
    pub tethered_to: Option<u32>,
    #[command(subcommand)]
    pub command: Command,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    /// An object a line.
    Json,
}

// What serves is there on Linux alone.
#[derive(Debug, Subcommand)]
pub enum Command {
    #[cfg(target_os = "linux")]
    Up(up::Up),
    #[cfg(target_os = "linux")]
    Devnet(devnet::Devnet),
    #[cfg(target_os = "linux")]
    Peer(peer::Peer),
    #[cfg(target_os = "linux")]
    Controller(controller::Controller),
    Login(login::Login),
    Logout(logout::Logout),
    Whoami(whoami::Whoami),
    New(new::New),
    Deploy(deploy::Deploy),
    Dev(dev::Dev),
    Call(call::Call),
    Run(run::Run),
    Functions(functions::Functions),
    Function(function::Function),
    Versions(versions::Versions),
    Code(code::Code),
    Rollback(rollback::Rollback),
    Traffic(traffic::Traffic),
    Triggers(triggers::Triggers),
    Routes(routes::Routes),
    Secrets(secrets::Secrets),
    Open(open::Open),
    Delete(delete::Delete),
    Restore(restore::Restore),
    Jobs(jobs::Jobs),
    Job(job::Job),
    Cancel(cancel::Cancel),
    Logs(logs::Logs),
    Quote(quote::Quote),
    Metrics(metrics::Metrics),
    Account(account::Account),
    Transfer(transfer::Transfer),
    Lend(lend::Lend),
    Deposits(deposits::Deposits),
    Withdrawals(withdrawals::Withdrawals),
    Invite(invite::Invite),
    Tokens(tokens::Tokens),
    Limits(limits::Limits),
    Audit(audit::Audit),
    Alerts(alerts::Alerts),
    Offers(offers::Offers),
    Leases(leases::Leases),
    Held(held::Held),
    Statement(statement::Statement),
    Ledger(ledger::Ledger),
    #[cfg(target_os = "linux")]
    Provide(provide::Provide),
    #[cfg(target_os = "linux")]
    Provider(provider::Provider),
    #[cfg(target_os = "linux")]
    Service(service::Service),
    #[cfg(target_os = "linux")]
    Doctor(doctor::Doctor),
    #[cfg(target_os = "linux")]
    Bench(bench::Bench),
    Completions(completions::Completions),
    #[command(hide = true)]
    Man(man::Man),
    #[cfg(target_os = "linux")]
    Openapi(openapi::Openapi),
}

/// Runs one command to its end.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    #[cfg(target_os = "linux")]
    if let Some(parent) = cli.tethered_to {
        crate::tether::tie(parent)?;
    }
    let json = cli.json;
    match cli.command {
        #[cfg(target_os = "linux")]
        Command::Up(command) => command.run().await,
        #[cfg(target_os = "linux")]
        Command::Devnet(command) => command.run().await,
        #[cfg(target_os = "linux")]
        Command::Peer(command) => command.run(json).await,
        #[cfg(target_os = "linux")]
        Command::Controller(command) => command.run().await,
        Command::Login(command) => command.run().await,
        Command::Logout(command) => command.run(),
        Command::Whoami(command) => command.run(json).await,
        Command::New(command) => command.run(),
        Command::Deploy(command) => command.run(json).await,
        Command::Dev(command) => command.run().await,
        Command::Call(command) => command.run(json).await,
        Command::Run(command) => command.run(json).await,
        Command::Functions(command) => command.run(json).await,
        Command::Function(command) => command.run(json).await,
        Command::Versions(command) => command.run(json).await,
        Command::Code(command) => command.run(json).await,
        Command::Rollback(command) => command.run(json).await,
        Command::Traffic(command) => command.run(json).await,
        Command::Triggers(command) => command.run(json).await,
        Command::Routes(command) => command.run(json).await,
        Command::Secrets(command) => command.run(json).await,
        Command::Open(command) => command.run(json).await,
        Command::Delete(command) => command.run().await,
        Command::Restore(command) => command.run(json).await,
        Command::Jobs(command) => command.run(json).await,
        Command::Job(command) => command.run(json).await,
        Command::Cancel(command) => command.run().await,
        Command::Logs(command) => command.run(json).await,
        Command::Quote(command) => command.run(json).await,
        Command::Metrics(command) => command.run(json).await,
        Command::Account(command) => command.run(json).await,
        Command::Transfer(command) => command.run(json).await,
        Command::Lend(command) => command.run(json).await,
        Command::Deposits(command) => command.run(json).await,
        Command::Withdrawals(command) => command.run(json).await,
        Command::Invite(command) => command.run(json).await,
        Command::Tokens(command) => command.run(json).await,
        Command::Limits(command) => command.run(json).await,
        Command::Audit(command) => command.run(json).await,
        Command::Alerts(command) => command.run(json).await,
        Command::Offers(command) => command.run(json).await,
        Command::Leases(command) => command.run(json).await,
        Command::Held(command) => command.run(json).await,
        Command::Statement(command) => command.run(json).await,
        Command::Ledger(command) => command.run(json).await,
        #[cfg(target_os = "linux")]
        Command::Provide(command) => command.run().await,
        #[cfg(target_os = "linux")]
        Command::Provider(command) => command.run(json).await,
        #[cfg(target_os = "linux")]
        Command::Service(command) => command.run(),
        #[cfg(target_os = "linux")]
        Command::Doctor(command) => command.run(json).await,
        #[cfg(target_os = "linux")]
        Command::Bench(command) => Box::pin(command.run(json)).await,
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
        #[cfg(target_os = "linux")]
        Command::Openapi(command) => command.run(),
    }
}

#[cfg(test)]
mod tests {
    use std::{fmt::Write as _, fs, path::Path};

    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_lines_of_the_interface_parse() {
        for line in [
            "piecework up --data d --listen 127.0.0.1:0 --egress-to 10.0.0.0/8",
            "piecework up --listen 0.0.0.0:7433 --url https://piecework.example.org/",
            "piecework up --alert-webhook https://hooks.example.org/x --alert-secret-file s --alert-command true",
            "piecework alerts test",
            "piecework alerts",
            "piecework routes set /api/orders orders --method GET --method POST",
            "piecework routes set / shop --host shop.example.org",
            "piecework routes remove /api/orders",
            "piecework routes assign shop.example.org ada",
            "piecework up --tls-cert c.pem --tls-key k.pem",
            "piecework up --acme h.example --acme www.h.example --acme-contact ops@h.example --acme-directory https://ca.example/d",
            "piecework devnet --peers 4 --providers 3 --data d --listen 127.0.0.1:0",
            "piecework peer init --owner ada --address h:7440 --listen 0.0.0.0:7440 --api 127.0.0.1:7441 --data d",
            "piecework peer card --data d",
            "piecework peer genesis --name n a.json b.json --owners 5cr --commission 3% --epoch 240 --output g.json",
            "piecework peer join http://h --network x",
            "piecework peer run --data d --config f",
            "piecework peer config show",
            "piecework peer config check --data d",
            "piecework up --log-format json",
            "piecework --log-format json controller config check --config f",
            "piecework provide config check --config f",
            "piecework peer proposals --url http://h",
            "piecework peer propose add card.json",
            "piecework peer propose params window_blocks=7200 commission_ppm=1",
            "piecework peer vote ada",
            "piecework controller init --peer http://a --peer http://b --genesis g.json --name c --operator o",
            "piecework controller join g.json --data d",
            "piecework controller join http://h --network x",
            "piecework controller run --data d",
            "piecework controller backup b --data d",
            "piecework controller restore b --data d",
            "piecework controller config show",
            "piecework login http://h --token t",
            "piecework login http://h --invite c --name ada",
            "piecework login http://h --name ada --key ada.key",
            "piecework account rotate-key",
            "piecework account rotate-key --key a --new-key b",
            "piecework logs hello --level warn --follow",
            "piecework new hello --language javascript",
            "piecework deploy p --name n --language python --timeout 5s --memory 128MiB --sandbox wasm --env A=1 --env B=2 --secret K=V --strict --allow api.example.com:443 --allow *.example.org:443 --egress-limit 1GiB --stream-limit 0",
            "piecework dev p",
            "piecework dev",
            "piecework deploy",
            "piecework deploy --name hello --secrets-from - --no-strict",
            "piecework call hello {} --async",
            "piecework run p --input {} --env A=1 --allow none --timeout 5s",
            "piecework run --of hello --version 3 --sandbox jail --input @event.json",
            "piecework call hello -",
            "piecework functions --json",
            "piecework --json functions",
            "piecework rollback hello 3",
            "piecework rollback hello",
            "piecework whoami",
            "piecework open hello --print",
            "piecework secrets set hello KEY --file f",
            "piecework secrets set hello --env-file -",
            "piecework secrets remove hello A B",
            "piecework logs hello --since 10m",
            "piecework deploy p --private --cors https://a.example --unset-env A",
            "piecework provider earnings --data d",
            "piecework traffic hello v3=90 v4=10 --max-errors 5% --min-calls 50",
            "piecework traffic hello --end",
            "piecework function hello --release",
            "piecework function hello --stop",
            "piecework function hello --start",
            "piecework function hello --budget 1.5cr",
            "piecework deploy p --canary 10 --budget 100",
            "piecework audit --json --action function.",
            "piecework limits ada --rate 50 --burst 100 --weight 2",
            "piecework restore hello",
            "piecework jobs --function hello",
            "piecework job job_00000000000000000000000000000001 --proof",
            "piecework logs hello --follow",
            "piecework transfer bob 1.5cr",
            "piecework transfer bob 1.5cr --key ada.key",
            "piecework lend bob 50cr",
            "piecework deposits add bob 5cr --reference INV-7",
            "piecework withdrawals request 2cr --pay-to DE00",
            "piecework withdrawals --all --open",
            "piecework withdrawals settle wd_1 --reference SEPA-9",
            "piecework withdrawals decline wd_1 --reason no",
            "piecework lend bob --cover 2cr",
            "piecework leases open --key ada.key",
            "piecework leases top-up 5cr --key ada.key",
            "piecework statement --csv",
            "piecework leases",
            "piecework leases close --lease lease_0000000000000000000000000000000000000004",
            "piecework leases close --key ada.key",
            "piecework leases delegate 0000000000000000000000000000000000000000000000000000000000000001",
            "piecework leases delegate 0000000000000000000000000000000000000000000000000000000000000001 --remove",
            "piecework ledger block 3",
            "piecework ledger export all.pwledger",
            "piecework ledger verify all.pwledger --genesis genesis.json",
            "piecework ledger verify --url http://127.0.0.1:1 --peer 0000000000000000000000000000000000000000000000000000000000000001",
            "piecework job job_00000000000000000000000000000001 --proof -o job.proof",
            "piecework account ada --proof --genesis genesis.json",
            "piecework tokens create --scope view --scope invoke --expires 7d",
            "piecework function hello --results none",
            "piecework provide --controller http://c --invite i --mine --free-for-owner --cores 1 --memory 1GiB --disk 2GiB",
            "piecework provide --when-idle --on-mains --hours 22:00-07:00 --owner-group /sys/fs/cgroup/user.slice",
            "piecework provide config show --data d --config f",
            "piecework provider status",
            "piecework provider why-idle --data d",
            "piecework provider limits --when-idle false --hours any --memory 512MiB",
            "piecework provider pause",
            "piecework doctor",
            "piecework bench",
            "piecework bench --sandbox oci --sandbox jail --language python --cold 5 --warm 10 --seconds 1 --csv raw.csv",
            "piecework service install",
            "piecework service install provide --data d --print -- --controller http://c --invite i",
            "piecework service uninstall up",
            "piecework completions bash",
            "piecework man d",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn bad_values_are_refused_with_what_is_accepted() {
        for (line, said) in [
            ("piecework deploy p --timeout 5", "500ms, 5s or 2m"),
            ("piecework deploy p --memory 128MB", "MiB"),
            ("piecework deploy p --env A", "NAME=VALUE"),
            ("piecework deploy p --language ruby", "python"),
            ("piecework transfer bob -- -1", "1.5cr"),
            ("piecework rollback hello 0", "`0` is not a version"),
            ("piecework job x", "job_"),
            ("piecework tokens create --scope root", "deploy"),
            ("piecework frobnicate", "frobnicate"),
            ("piecework provide --hours 9-17", "22:00-07:00"),
            ("piecework up --tls-cert c.pem", "--tls-key"),
            ("piecework up --acme *.h.example", "wildcard"),
            ("piecework up --acme-contact ops@h.example", "--acme"),
            (
                "piecework up --acme h.example --tls-cert c.pem --tls-key k.pem",
                "cannot be used",
            ),
            ("piecework up --url example.org", "https://piecework.example.org"),
            (
                "piecework up --url https://example.org/fn",
                "https://piecework.example.org",
            ),
            ("piecework function hello --results missing.json", "missing.json"),
            ("piecework devnet --peers 0", "1..=16"),
            ("piecework peer init --owner Ada! --address h:1", "owner"),
            ("piecework peer propose remove x", "key"),
        ] {
            let error = parse(line).map(|cli| format!("{cli:?}")).expect_err(line).to_string();
            assert!(error.contains(said), "{line}: {error}");
        }
    }

    fn help() -> String {
        let mut text = String::new();
        let mut command = Cli::command();
        command.build();
        write_help(command, "piecework", &mut text);
        text
    }

    fn write_help(mut command: clap::Command, path: &str, into: &mut String) {
        let help = command.render_long_help().to_string();
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        write!(into, "=== {path} ===\n{}\n\n", lines.join("\n").trim_end()).expect("a string takes every write");
        for sub in command
            .get_subcommands()
            .filter(|sub| sub.get_name() != "help")
            .cloned()
            .collect::<Vec<_>>()
        {
            let path = format!("{path} {}", sub.get_name());
            write_help(sub, &path, into);
        }
    }

    #[test]
    fn the_help_is_as_in_the_golden_file() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/help.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, help()).expect("written");
        }
        let golden = fs::read_to_string(&path).expect("the golden file is there");
        assert!(
            golden == help(),
            "tests/golden/help.txt is stale: run UPDATE_GOLDEN=1 cargo test -p piecework"
        );
    }
}
