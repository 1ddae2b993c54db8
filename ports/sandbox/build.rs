//! Builds the first process of image sandboxes, `runtimes/image`: one static program of the standard library alone, so that it runs
//! in any root. By the compiler itself, because it has no dependencies and another target's features. Packed, because each program
//! that starts sandboxes contains it.

use std::{env, fs, path::Path, process::Command};

/// Less than half of it; a higher level saves little.
const LEVEL: i32 = 19;

fn main() {
    let sources = "../../runtimes/image";
    println!("cargo::rerun-if-changed={sources}");
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let out = Path::new(&variable("OUT_DIR")).join("image-runner");
    if variable("CARGO_CFG_TARGET_OS") != "linux" {
        return pack(b"", &out);
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
    pack(&fs::read(&out).expect("it was compiled"), &out);
}

fn pack(program: &[u8], out: &Path) {
    let packed = zstd::encode_all(program, LEVEL).expect("memory is written to");
    fs::write(out.with_extension("zst"), packed).expect("the directory is cargo's");
}
