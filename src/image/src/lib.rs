//! The content half of creel's images: what image-spec describes, without the network.
//!
//! Names and documents first ([`digest`], [`descriptor`], [`platform`], [`manifest`], [`reference`]); they are
//! pure and read text that strangers wrote.
#![forbid(unsafe_code)]

pub mod descriptor;
pub mod digest;
mod errno;
pub mod manifest;
pub mod platform;
pub mod reference;
pub mod stack;
pub mod tar;
#[cfg(test)]
mod testing;
pub mod unpack;
