//! Tells the harness which target the machine itself is: the probe is built for it.

fn main() {
    let host = std::env::var("HOST").unwrap_or_default();
    println!("cargo::rustc-env=CREEL_TEST_HOST={host}");
    println!("cargo::rerun-if-changed=build.rs");
}
