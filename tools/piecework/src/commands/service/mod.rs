//! `piecework service`: roles that start with the machine, by systemd.

mod unit;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use unit::{Role, Scope, Start};

use crate::{compose, failure::Failure, places, show};

/// Make a role start with this machine (systemd)
#[derive(Debug, clap::Args)]
pub struct Service {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Write a systemd unit for a role, enable it and start it
    #[command(after_help = "Example:\n  \
        sudo piecework service install provide -- --controller https://piecework.example.org --invite CODE --when-idle\n\n\
        As root, the unit is one of the system, and its state is in /var/lib/piecework. Otherwise it is your own: it starts\n\
        with your session, or with the machine after `loginctl enable-linger`.")]
    Install {
        /// Role to run
        #[arg(default_value = "provide")]
        role: Role,
        /// Data directory [default: /var/lib/piecework/ROLE; without root, the role's own default]
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Print the unit instead of writing it
        #[arg(long)]
        print: bool,
        /// Options of the role, after `--`
        #[arg(last = true, value_name = "OPTIONS")]
        options: Vec<String>,
    },
    /// Stop a role's unit and remove it; its data stays
    Uninstall {
        /// Role that was installed
        #[arg(default_value = "provide")]
        role: Role,
    },
}

impl Service {
    pub fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::Install {
                role,
                data,
                print,
                options,
            } => install(role, data, print, &options),
            Action::Uninstall { role } => uninstall(role),
        }
    }
}

fn install(role: Role, data: Option<PathBuf>, print: bool, options: &[String]) -> Result<(), Failure> {
    let scope = scope();
    let data = match data {
        Some(data) => std::path::absolute(data).context("cannot read the current directory")?,
        None => default_data(role, scope)?,
    };
    let (invite, options) = match role {
        Role::Provide => without_invite(options)?,
        Role::Up | Role::Peer | Role::Controller => (None, options.to_vec()),
    };
    let program = std::env::current_exe().context("cannot find this program's own path")?;
    let text = unit::text(&Start {
        role,
        scope,
        program: utf8(&program)?,
        data: utf8(&data)?,
        options: &options,
    });
    if print {
        return show::text(&text);
    }
    let user = user_of(&text);
    if let Some(user) = user.filter(|user| ids_of(user).is_none()) {
        return Err(Failure::usage(format!(
            "this role runs as the user `{user}`, who does not exist\n  create it with: useradd --system --user-group --home-dir {} \
             --shell /usr/sbin/nologin {user}",
            places::SYSTEM_STATE_DIR
        )));
    }
    fs::create_dir_all(&data).with_context(|| format!("cannot create {}", data.display()))?;
    if let Some(invite) = invite {
        let kept = compose::invite::keep(&data, &invite, user.and_then(ids_of)).map_err(Failure::Local)?;
        eprintln!(
            "wrote the invite to {}, which only the service reads; its first start uses it up",
            kept.display()
        );
    }
    let path = units(scope)?.join(role.unit());
    write(&path, &text)?;
    eprintln!("wrote {}", path.display());
    let unit = role.unit();
    let flag = scope.flag();
    if !systemd_runs() {
        eprintln!("systemd does not run here; on a machine where it does, start it with:");
        eprintln!("  systemctl {flag}daemon-reload && systemctl {flag}enable --now {unit}");
        return Ok(());
    }
    systemctl(scope, &["daemon-reload"])?;
    systemctl(scope, &["enable", "--now", unit])?;
    eprintln!("enabled and started; follow it with:\n  journalctl {flag}-u {unit} -f");
    if scope == Scope::User {
        eprintln!("to start it with the machine, before you log in:\n  sudo loginctl enable-linger $USER");
    }
    Ok(())
}

/// Who runs what the unit says, if not root.
fn user_of(unit: &str) -> Option<&str> {
    unit.lines().find_map(|line| line.strip_prefix("User="))
}

/// The numbers of a user and of its group.
fn ids_of(user: &str) -> Option<(u32, u32)> {
    let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = known.lines().find(|line| line.split(':').next() == Some(user))?;
    let mut numbers = line.split(':').skip(2).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The invite among a provider's options, and the other options: everybody on the machine can read a unit.
fn without_invite(options: &[String]) -> Result<(Option<String>, Vec<String>), Failure> {
    let (mut invite, mut others) = (None, Vec::new());
    let mut words = options.iter();
    while let Some(word) = words.next() {
        if word == "--invite" {
            let code = words.next().ok_or_else(|| Failure::usage("--invite needs a code"))?;
            invite = Some(code.clone());
        } else if let Some(code) = word.strip_prefix("--invite=") {
            invite = Some(code.to_owned());
        } else {
            others.push(word.clone());
        }
    }
    Ok((invite, others))
}

fn uninstall(role: Role) -> Result<(), Failure> {
    let scope = scope();
    let unit = role.unit();
    let path = units(scope)?.join(unit);
    if !path.exists() {
        return Err(Failure::usage(format!(
            "{} does not exist; `piecework service install` writes it{}",
            path.display(),
            match scope {
                Scope::System => "",
                Scope::User => ", or run this as root for a unit of the system",
            }
        )));
    }
    if systemd_runs() {
        systemctl(scope, &["disable", "--now", unit])?;
    }
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    if systemd_runs() {
        systemctl(scope, &["daemon-reload"])?;
    }
    eprintln!("removed {}; the data stays where it is", path.display());
    Ok(())
}

impl Scope {
    fn flag(self) -> &'static str {
        match self {
            Self::System => "",
            Self::User => "--user ",
        }
    }
}

fn scope() -> Scope {
    match rustix::process::geteuid().is_root() {
        true => Scope::System,
        false => Scope::User,
    }
}

/// Where an administrator's units lie, or a user's.
fn units(scope: Scope) -> Result<PathBuf, Failure> {
    Ok(match scope {
        Scope::System => PathBuf::from("/etc/systemd/system"),
        Scope::User => places::user_units()?,
    })
}

fn default_data(role: Role, scope: Scope) -> Result<PathBuf, Failure> {
    Ok(match (scope, role) {
        (Scope::System, role) => Path::new(places::SYSTEM_STATE_DIR).join(role.state()),
        (Scope::User, Role::Up) => places::default_data_dir()?,
        (Scope::User, Role::Provide) => places::default_role_dir("provider")?,
        (Scope::User, role) => places::default_role_dir(role.state())?,
    })
}

/// Whole or not at all; an older unit is replaced.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let fresh = path.with_extension("service.new");
    let folder = path.parent().context("a unit lies in a folder")?;
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&fresh, text))
        .and_then(|()| fs::rename(&fresh, path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

fn systemctl(scope: Scope, arguments: &[&str]) -> Result<(), Failure> {
    let mut command = Command::new("systemctl");
    if scope == Scope::User {
        command.arg("--user");
    }
    let status = command.args(arguments).status().context("cannot run systemctl")?;
    match status.success() {
        true => Ok(()),
        false => Err(Failure::usage(format!(
            "systemctl {}{} failed: {status}",
            scope.flag(),
            arguments.join(" ")
        ))),
    }
}

fn utf8(path: &Path) -> Result<&str, Failure> {
    path.to_str()
        .ok_or_else(|| Failure::usage(format!("{} is not UTF-8; a unit cannot name it", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invite_is_in_no_unit() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for options in [
            "--controller URL --invite CODE --when-idle",
            "--controller URL --invite=CODE --when-idle",
        ] {
            let (invite, others) = without_invite(&words(options)).expect("taken apart");
            assert_eq!(invite.as_deref(), Some("CODE"));
            assert_eq!(others, words("--controller URL --when-idle"));
        }
        assert_eq!(without_invite(&words("--mine")).expect("none").0, None);
        assert!(without_invite(&words("--mine --invite")).is_err());
    }

    #[test]
    fn a_user_is_known_by_its_numbers() {
        assert_eq!(ids_of("root"), Some((0, 0)));
        assert_eq!(ids_of("nobody-of-this-name"), None);
    }
}
