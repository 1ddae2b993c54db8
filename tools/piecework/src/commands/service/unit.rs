//! The text of a unit: that of the packages, with this machine's program, options and directories.

/// A role that runs as a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Run jobs of a controller elsewhere
    Provide,
    /// Controller, ledger peer and provider on this machine
    Up,
    /// A ledger peer
    Peer,
    /// A controller
    Controller,
}

/// Who starts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// With the machine, as the unit says.
    System,
    /// With the user's session, or with the machine if the user lingers; as that user.
    User,
}

impl Role {
    pub fn unit(self) -> &'static str {
        match self {
            Self::Provide => "piecework-provide.service",
            Self::Up => "piecework.service",
            Self::Peer => "piecework-peer.service",
            Self::Controller => "piecework-controller.service",
        }
    }

    fn packaged(self) -> &'static str {
        match self {
            Self::Provide => include_str!("../../../../../packaging/systemd/piecework-provide.service"),
            Self::Up => include_str!("../../../../../packaging/systemd/piecework.service"),
            Self::Peer => include_str!("../../../../../packaging/systemd/piecework-peer.service"),
            Self::Controller => include_str!("../../../../../packaging/systemd/piecework-controller.service"),
        }
    }

    /// The directory of its state below /var/lib/piecework.
    pub fn state(self) -> &'static str {
        match self {
            Self::Provide => "provide",
            Self::Up => "up",
            Self::Peer => "peer",
            Self::Controller => "controller",
        }
    }

    fn command(self) -> &'static [&'static str] {
        match self {
            Self::Provide => &["provide"],
            Self::Up => &["up"],
            Self::Peer => &["peer", "run"],
            Self::Controller => &["controller", "run"],
        }
    }
}

/// What a unit of this machine starts.
pub struct Start<'a> {
    pub role: Role,
    pub scope: Scope,
    /// This executable, absolute.
    pub program: &'a str,
    /// Absolute.
    pub data: &'a str,
    pub options: &'a [String],
}

/// Lines of a system unit that a user's own service manager cannot do, or that name the system's directories.
const SYSTEM_ONLY: [&str; 12] = [
    "User=",
    "EnvironmentFile=",
    "Environment=",
    "StateDirectory",
    "CacheDirectory=",
    "ConditionPathExists=",
    "CapabilityBoundingSet=",
    "Delegate=",
    "Protect",
    "Private",
    "Wants=",
    "After=",
];

/// What a user's service keeps of the bounds: those that its sandboxes can work under without root.
const USER_ONLY_DROPS: [&str; 5] = ["Restrict", "SystemCall", "MemoryDeny", "RemoveIPC=", "# "];

/// The unit's text.
pub fn text(start: &Start<'_>) -> String {
    let mut lines = Vec::new();
    for line in start.role.packaged().lines() {
        if start.scope == Scope::User && is_of_the_system(line) {
            continue;
        }
        lines.push(match line {
            _ if line.starts_with("ExecStart=") => exec_start(start),
            _ if line.starts_with("ConditionPathExists=") => moved(line, start),
            "WantedBy=multi-user.target" if start.scope == Scope::User => "WantedBy=default.target".to_owned(),
            other => other.to_owned(),
        });
        // Else the rest of the file system is read-only to it.
        if line == "ProtectSystem=strict" {
            lines.push(format!("ReadWritePaths={}", quoted(start.data)));
        }
    }
    lines.join("\n") + "\n"
}

fn is_of_the_system(line: &str) -> bool {
    SYSTEM_ONLY
        .iter()
        .chain(&USER_ONLY_DROPS)
        .any(|prefix| line.starts_with(prefix))
}

/// A condition of a packaged unit names a file in the packaged directory.
fn moved(line: &str, start: &Start<'_>) -> String {
    let packaged = format!("/var/lib/piecework/{}", start.role.state());
    line.replace(&packaged, start.data)
}

fn exec_start(start: &Start<'_>) -> String {
    let command = start.role.command().iter().map(|word| (*word).to_owned());
    let words: Vec<String> = [start.program.to_owned()]
        .into_iter()
        .chain(command)
        .chain(["--data".to_owned(), start.data.to_owned()])
        .chain(start.options.iter().cloned())
        .map(|word| quoted(&word))
        .collect();
    format!("ExecStart={}", words.join(" "))
}

/// A word as systemd reads it back: quotes, and no meaning of `%` and `$`.
fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=,@+".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let escaped = word
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
        .replace('%', "%%")
        .replace('$', "$$");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start<'a>(role: Role, scope: Scope, options: &'a [String]) -> Start<'a> {
        Start {
            role,
            scope,
            program: "/opt/piece work/piecework",
            data: "/srv/jobs",
            options,
        }
    }

    #[test]
    fn a_system_unit_starts_this_program_on_this_directory() {
        let options = ["--controller".to_owned(), "https://a.example/?x=%1$2".to_owned()];
        let text = text(&start(Role::Provide, Scope::System, &options));
        let exec = "ExecStart=\"/opt/piece work/piecework\" provide --data /srv/jobs --controller \"https://a.example/?x=%%1$$2\"";
        assert!(text.contains(exec), "{text}");
        assert!(text.contains("ReadWritePaths=/srv/jobs"), "{text}");
        assert!(text.contains("WantedBy=multi-user.target"), "{text}");
        assert!(!text.contains("PIECEWORK_PROVIDE_OPTIONS"), "{text}");
    }

    #[test]
    fn a_condition_names_the_directory_that_is_used() {
        let text = text(&start(Role::Peer, Scope::System, &[]));
        assert!(text.contains("ConditionPathExists=/srv/jobs/genesis.json"), "{text}");
    }

    #[test]
    fn a_users_unit_asks_for_nothing_that_only_root_can_give() {
        for role in [Role::Provide, Role::Up, Role::Peer, Role::Controller] {
            let text = text(&start(role, Scope::User, &[]));
            for line in [
                "User=",
                "CapabilityBoundingSet=",
                "ProtectSystem=",
                "/var/",
                "Delegate=",
            ] {
                assert!(!text.contains(line), "{line}: {text}");
            }
            for line in ["WantedBy=default.target", "Restart=on-failure", "NoNewPrivileges=yes"] {
                assert!(text.contains(line), "{line}: {text}");
            }
        }
    }
}
