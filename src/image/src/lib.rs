//! The content half of creel's images: what image-spec describes, without the network.
//!
//! * Names and documents, pure, from text that strangers wrote: [`digest`], [`descriptor`], [`platform`],
//!   [`manifest`], [`config`], [`mod@reference`], and [`choose`], which goes from one to the other.
//! * Sources that are files: [`layout`].
//! * Layers to directories: [`tar`], [`unpack`], and [`stack`], which reads them as overlayfs will show them.
//! * What is kept: [`store`].
//! * What is run: [`runtime_config`] makes config.json, [`mount`] the root, [`volume`] what lies beside it, and
//!   [`root`] looks into it.
//!
//! A pull is: choose a manifest; for each of its layers ask the store for [`store::Layer`] and unpack into the slot
//! that is missing, layers in parallel; then add the image and name it. Nothing is used before its digest was right.
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
pub mod root;
pub mod runtime_config;
pub mod stack;
pub mod store;
pub mod tar;
#[cfg(test)]
mod testing;
pub mod unpack;
pub mod volume;
