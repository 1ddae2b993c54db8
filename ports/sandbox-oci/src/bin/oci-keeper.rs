//! The keeper alone: what tests start again.

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((first, rest)) if first == piecework_sandbox_oci::KEEPER_ARGUMENT => {
            piecework_sandbox_oci::keeper_main(rest)
        }
        Some(_) | None => {
            eprintln!("this is started by the container backends");
            std::process::exit(2);
        }
    }
}
