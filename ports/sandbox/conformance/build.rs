//! Builds the program of the suite's image: static, of the standard library alone, so that it runs in any root.

use std::{env, fs, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=image/main.rs");
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let out = Path::new(&variable("OUT_DIR")).join("image-program");
    if variable("CARGO_CFG_TARGET_OS") != "linux" {
        fs::write(&out, "").expect("the directory is cargo's");
        return;
    }
    let mut compile = Command::new(variable("RUSTC"));
    compile.args([
        "--edition",
        "2024",
        "--target",
        &variable("TARGET"),
        "--crate-name",
        "image_program",
    ]);
    compile.args([
        "-C",
        "opt-level=1",
        "-C",
        "panic=abort",
        "-C",
        "strip=symbols",
        "-C",
        "target-feature=+crt-static",
    ]);
    compile.arg("-o").arg(&out).arg("image/main.rs");
    let compiled = compile.status().expect("the compiler can be started");
    assert!(compiled.success(), "the suite's image program does not compile");
}
