//! creel-seccomp: `.linux.seccomp` of the runtime specification -> classic BPF.
//!
//! Runs in the **host** process, before the container's first process is cloned; `exec` reads the
//! result from the state directory. Nothing is loaded here: the jail calls seccomp(2) in init.
//!
//! ```text
//! Seccomp --profile--> Profile --calls--> Calls per architecture --ranges--> Ranges
//!         --tree, emit--> Assembler --> Program
//! ```
//!
//! The filter does what the one would do that runc builds through libseccomp and patches to
//! answer ENOSYS for system calls newer than the profile; the tests run both over every number.
//! It is generated here rather than by libseccomp because that takes 15 ms for the profile that
//! engines send, and its filter, five times as long, is slower to load (the kernel checks and
//! converts it at every start and exec). libseccomp itself is asked for nothing but the numbers
//! of system calls, when creel is built (`build.rs`).
//!
//! Three things are not as in libseccomp 2.5.4, whose generator departs from its manual there
//! (the tests name them): comparisons of order in several rules for one call on 64-bit
//! arguments, which it may make with the wrong half or argument; an architecture whose first
//! call in its list has only a pseudo number, all of whose rules it loses; and rules that overlap
//! with different actions, some of which it refuses though their order is defined. Where it
//! keeps an order of such rules, so does this crate.

mod arch;
mod args;
mod assemble;
mod calls;
mod compiled;
mod emit;
mod error;
mod file;
mod flags;
pub mod names;
mod profile;
mod program;
mod ranges;
mod syscalls;
mod tree;

#[cfg(test)]
mod tests;

use creel_plan::spec::Seccomp;

use arch::Arch;
use calls::Calls;
use profile::Profile;

pub use error::Error;
pub use file::FileError;
pub use names::supported_flags;
pub use program::{Compiled, Program, SockFilter};
/// The version of libseccomp whose numbers of system calls these are, for example `2.5.4`.
pub use syscalls::VERSION as LIBSECCOMP_VERSION;

/// Compiles a profile for the machine it runs on.
///
/// The native architecture is part of every filter, named or not. A call from an architecture
/// that is not gets SECCOMP_RET_KILL_THREAD.
///
/// # Errors
///
/// The first thing that is wrong with the profile, with its path in config.json.
pub fn compile(profile: &Seccomp) -> Result<Program, Error> {
    compile_on(profile, Arch::native().ok_or(Error::NativeUnknown)?)
}

fn compile_on(profile: &Seccomp, native: &'static Arch) -> Result<Program, Error> {
    let profile = Profile::check(profile, native)?;
    let calls =
        profile.archs.iter().map(|arch| Calls::resolve(&profile, arch)).collect::<Result<Vec<_>, _>>()?;
    let filter = tree::filter(&calls, profile.default);
    if filter.len() > program::MAX_LEN {
        return Err(Error::TooLong { len: filter.len() });
    }
    Ok(Program { filter, flags: profile.flags, notify: profile.notify })
}
