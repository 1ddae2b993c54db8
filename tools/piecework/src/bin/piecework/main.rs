//! Starts the program. All of it is in the library, which a release links with other flags than a build does.

#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
mod linked;

fn main() -> std::process::ExitCode {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    piecework::look_up_without_plugins();
    piecework::main()
}
