//! What unpacks layers, as an executable of its own: for tests, where the program itself is not there.

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    piecework_image::unpack_main(&arguments[2..])
}
