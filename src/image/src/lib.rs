//! The content half of creel's images: what image-spec describes, without the network.
//!
//! Names and documents first ([`digest`], [`descriptor`], [`platform`], [`manifest`], [`reference`]); they are
//! pure and read text that strangers wrote.
#![forbid(unsafe_code)]

pub mod descriptor;
pub mod digest;
pub mod manifest;
pub mod platform;
pub mod reference;
