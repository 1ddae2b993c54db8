//! `piecework completions`: what a shell needs to complete commands and options.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{cli::Cli, failure::Failure, show};

/// Print the completion script of a shell
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Bash:  piecework completions bash > ~/.local/share/bash-completion/completions/piecework\n\
    Zsh:   piecework completions zsh > DIR/_piecework, with DIR in $fpath\n\
    Fish:  piecework completions fish > ~/.config/fish/completions/piecework.fish"
)]
pub struct Completions {
    /// Shell to complete for
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "piecework", &mut script);
        show::text(&String::from_utf8_lossy(&script))
    }
}
