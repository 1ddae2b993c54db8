//! Builds the first process of image sandboxes, `runtimes/image`: one static program of the standard library alone, so that it runs
//! in any root. By the compiler itself, because it has no dependencies and another target's features.

use std::{env, fs, path::Path, process::Command};

fn main() {
    let sources = "../../runtimes/image";
    println!("cargo::rerun-if-changed={sources}");
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let out = Path::new(&variable("OUT_DIR")).join("image-runner");
    if variable("CARGO_CFG_TARGET_OS") != "linux" {
        fs::write(&out, "").expect("the directory is cargo's");
        return;
    }
    let flags = [
        "opt-level=s",
        "panic=abort",
        "strip=symbols",
        "codegen-units=1",
        "relocation-model=static",
        "target-feature=+crt-static",
    ];
    let mut compile = Command::new(variable("RUSTC"));
    compile.args([
        "--edition",
        "2024",
        "--target",
        &variable("TARGET"),
        "--crate-name",
        "image_runner",
    ]);
    compile.args(flags.iter().flat_map(|flag| ["-C", flag]));
    compile.arg("-o").arg(&out).arg(format!("{sources}/main.rs"));
    let compiled = compile.status().expect("the compiler can be started");
    assert!(compiled.success(), "runtimes/image does not compile");
}
