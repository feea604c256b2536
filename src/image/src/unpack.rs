//! Layers to directories: a stream is verified, inflated, read as tar and written, in one pass.
//!
//! Two threads share a layer. One reads the source, hashes what it reads and inflates it; the other hashes
//! what comes out, parses it and writes files. What lies between them is bounded. Every path is resolved
//! below the root's fd, and nothing of a layer may be used before [`unpack_layer`] has returned: only then
//! both digests are known to be right.
//!
//! ```text
//! source -> Verified(digest, size) -> inflate -> [channel] -> Hasher(diff id) -> tar -> Tree
//! ```

mod attributes;
mod decompress;
mod descent;
mod entry;
mod error;
mod gzip;
mod names;
mod pipeline;
mod remove;
mod tree;

pub(crate) use attributes::copy_attributes;
pub use decompress::{Decompressor, Format};
pub(crate) use descent::Descent;
pub use error::{Error, WriteFailed};
pub use names::Escape;
pub(crate) use names::components;
pub(crate) use pipeline::Counted;
pub use pipeline::{Expected, Limits, Unpacked, unpack_layer};
pub use remove::remove_all;
pub(crate) use remove::{names as names_in, open_dir};
pub(crate) use tree::is_whiteout;
pub use tree::{Applied, Devices, Form, Need, Options, Owners, Skipped, Tree};

#[cfg(test)]
mod tests;
