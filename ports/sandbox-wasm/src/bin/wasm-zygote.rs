//! The zygote alone: what tests and examples start again.

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((first, rest)) if first == piecework_sandbox_wasm::ZYGOTE_ARGUMENT => {
            piecework_sandbox_wasm::zygote_main(rest)
        }
        Some(_) | None => {
            eprintln!("this is started by the wasm backend");
            std::process::exit(2);
        }
    }
}
