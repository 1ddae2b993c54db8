//! The launcher alone: what tests and examples start again.

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((first, rest)) if first == piecework_sandbox_jail::INIT_ARGUMENT => {
            piecework_sandbox_jail::init_main(rest)
        }
        Some(_) | None => {
            eprintln!("this is started by the jail backend");
            std::process::exit(2);
        }
    }
}
