//! The committed header is the one that cbindgen makes of `src/c_api`. With `SINEW_WRITE_HEADER=1` it is written instead.

use std::path::Path;

#[test]
fn the_header_is_that_of_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("src/c_api");
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).expect("a configuration");
    let mut builder = cbindgen::Builder::new().with_config(config).with_src(root.join("src/c_api.rs"));
    for part in ["status", "options", "model", "ports", "session", "image"] {
        builder = builder.with_src(folder.join(part).with_extension("rs"));
    }
    let mut made = Vec::new();
    builder.generate().expect("files that cbindgen reads").write(&mut made);
    let made = String::from_utf8(made).expect("text");
    let path = folder.join("sinew.h");
    if std::env::var_os("SINEW_WRITE_HEADER").is_some() {
        std::fs::write(&path, &made).expect("a folder that can be written");
    }
    let committed = std::fs::read_to_string(&path).expect("the header is committed");
    assert!(
        committed.lines().eq(made.lines()),
        "src/c_api/sinew.h is out of date: run this test with SINEW_WRITE_HEADER=1"
    );
}
