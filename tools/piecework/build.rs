//! Packs the interpreters of the wasm sandbox into the executable, so that a copy of it works anywhere.
//!
//! They come from `runtimes/build.sh`. Without them the build works, and says what is missing.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// Within a few per cent of the smallest, in seconds instead of minutes.
const LEVEL: i32 = 9;

fn main() -> io::Result<()> {
    let variable = |name: &str| env::var_os(name).map(PathBuf::from).expect("cargo sets it");
    let built = variable("CARGO_MANIFEST_DIR").join("../../runtimes/build");
    let out = variable("OUT_DIR");
    println!("cargo:rerun-if-changed=build.rs");
    let mut code = String::new();
    for language in ["python", "javascript"] {
        let component = built.join(format!("{language}.wasm"));
        println!("cargo:rerun-if-changed={}", component.display());
        let packed = match component.is_file() {
            true => format!("Some(include_bytes!({:?}))", pack(&component, &out)?),
            false => {
                println!(
                    "cargo:warning=built without the wasm interpreter of {language}: run runtimes/build.sh, then build again"
                );
                "None".to_owned()
            }
        };
        let name = language.to_uppercase();
        code += &format!("pub const {name}: Option<&[u8]> = {packed};\n");
    }
    fs::write(out.join("interpreters.rs"), code)
}

/// Where the compressed component lies.
fn pack(component: &Path, out: &Path) -> io::Result<PathBuf> {
    let packed = out
        .join(component.file_name().expect("it has a name"))
        .with_extension("wasm.zst");
    zstd::stream::copy_encode(fs::File::open(component)?, fs::File::create(&packed)?, LEVEL)?;
    Ok(packed)
}
