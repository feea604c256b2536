//! The content half of creel's images: what image-spec describes, without the network.
//!
//! Names and documents first ([`digest`], [`descriptor`], [`platform`], [`manifest`], [`reference`]); they are
//! pure and read text that strangers wrote.
#![forbid(unsafe_code)]

pub mod choose;
pub mod config;
pub mod descriptor;
pub mod digest;
mod errno;
pub mod layout;
pub mod manifest;
pub mod mount;
pub mod platform;
pub mod reference;
pub mod runtime_config;
pub mod stack;
pub mod store;
pub mod tar;
#[cfg(test)]
mod testing;
pub mod unpack;
