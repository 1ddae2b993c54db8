//! Packs the interpreters of the wasm sandbox, and the translator of TypeScript, into the executable, so that a copy of it works anywhere.
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
    for file in ["python.wasm", "javascript.wasm", "typescript.mjs"] {
        let component = built.join(file);
        println!("cargo:rerun-if-changed={}", component.display());
        let packed = match component.is_file() {
            true if file.ends_with(".wasm") => format!("Some(include_bytes!({:?}))", pack(&component, &out)?),
            // It is small.
            true => format!("Some(include_bytes!({:?}))", component.canonicalize()?),
            false => {
                println!("cargo:warning=built without {file}: run runtimes/build.sh, then build again");
                "None".to_owned()
            }
        };
        let name = component
            .file_stem()
            .expect("it has a name")
            .to_string_lossy()
            .to_uppercase();
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
