//! What a stranger's bytes meet in creel, each as one function of bytes that must not panic and whose claims
//! must hold. [`TARGETS`] lists them; `hack/fuzz.sh` runs them under libFuzzer, and the tests of this crate on the
//! corpus and on bytes drawn from it.
#![forbid(unsafe_code)]

mod documents;
mod inflate;
mod tar;
mod text;
mod unpack;

/// One thing to be tried.
pub struct Target {
    /// Name, and directory below `corpus/`.
    pub name: &'static str,
    /// Panics when a claim does not hold.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 6] = [
    Target { name: "tar", run: tar::run },
    Target { name: "unpack", run: unpack::run },
    Target { name: "inflate", run: inflate::run },
    Target { name: "reference", run: text::reference },
    Target { name: "challenge", run: text::challenge },
    Target { name: "documents", run: documents::run },
];
