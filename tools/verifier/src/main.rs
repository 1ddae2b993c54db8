//! `piecework-verifier FILE [NETWORK]`: checks a file from `piecework ledger export`. Exit code 0: valid; 3: not valid.

use std::{env, fs::File, io::BufReader, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (file, network) = match &arguments[..] {
        [file] => (file, None),
        [file, network] => (file, Some(network.trim_start_matches("net_"))),
        _ => {
            eprintln!("piecework-verifier FILE [NETWORK]: check an export; NETWORK is the expected network id");
            return ExitCode::from(2);
        }
    };
    let opened = match File::open(file) {
        Ok(opened) => BufReader::new(opened),
        Err(error) => {
            eprintln!("{file}: {error}");
            return ExitCode::from(2);
        }
    };
    match piecework_verifier::check(opened) {
        Ok(checked) if network.is_some_and(|network| network != hex::encode(checked.network)) => {
            eprintln!("refused: this is network net_{}", hex::encode(checked.network));
            ExitCode::from(3)
        }
        Ok(checked) => {
            println!("network       net_{}", hex::encode(checked.network));
            println!(
                "blocks        {}, {} certificates",
                checked.blocks, checked.certificates
            );
            println!("transactions  {}", checked.transactions);
            println!(
                "balances      {} of {} accounts and the pools",
                checked.values.saturating_sub(1),
                checked.accounts
            );
            println!("head          {}", hex::encode(checked.head));
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            eprintln!("refused: {wrong}");
            ExitCode::from(3)
        }
    }
}
