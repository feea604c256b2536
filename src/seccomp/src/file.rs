//! Filters as files: what `create` leaves in the state directory for `exec`.
//!
//! All numbers are little-endian: magic (8 bytes), version, AUDIT_ARCH_* of the machine, flags,
//! number of instructions (4 bytes each), then 8 bytes for each instruction.

use std::fmt;

use crate::arch::Arch;
use crate::flags;
use crate::program::{MAX_LEN, Program, SockFilter};

const MAGIC: [u8; 8] = *b"creelbpf";
const VERSION: u32 = 1;
const HEADER: usize = 24;
const INSTRUCTION: usize = 8;

/// Bytes that are no filter of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileError {
    /// The file does not start like a filter.
    Magic,
    /// The file is of another version of creel.
    Version(u32),
    /// The filter is of another architecture.
    Arch(u32),
    /// Flags that creel never sets.
    Flags(u32),
    /// Too short, too long, or not as long as it says.
    Length,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::Magic => f.write_str("not a seccomp filter of creel"),
            FileError::Version(version) => {
                write!(f, "seccomp filter of version {version}; this creel reads {VERSION}")
            }
            FileError::Arch(audit) => write!(f, "seccomp filter of another architecture ({audit:#x})"),
            FileError::Flags(flags) => write!(f, "seccomp filter with unknown flags ({flags:#x})"),
            FileError::Length => f.write_str("seccomp filter with a wrong length"),
        }
    }
}

impl std::error::Error for FileError {}

impl Program {
    /// The filter as a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + INSTRUCTION * self.filter.len());
        bytes.extend(MAGIC);
        // compile() keeps the length at MAX_LEN or less.
        for field in [VERSION, native_audit(), self.flags, self.filter.len() as u32] {
            bytes.extend(field.to_le_bytes());
        }
        for instruction in &self.filter {
            bytes.extend(instruction.code.to_le_bytes());
            bytes.extend([instruction.jt, instruction.jf]);
            bytes.extend(instruction.k.to_le_bytes());
        }
        bytes
    }

    /// Reads [`Program::to_bytes`] back. The instructions themselves are checked by the kernel.
    pub fn from_bytes(bytes: &[u8]) -> Result<Program, FileError> {
        let (header, body) = bytes.split_at_checked(HEADER).ok_or(FileError::Length)?;
        let (magic, fields) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(FileError::Magic);
        }
        let mut fields =
            fields.chunks_exact(4).map(|field| u32::from_le_bytes([field[0], field[1], field[2], field[3]]));
        let mut field = || fields.next().ok_or(FileError::Length);
        let (version, audit, flags, len) = (field()?, field()?, field()?, field()?);
        if version != VERSION {
            return Err(FileError::Version(version));
        }
        if audit != native_audit() {
            return Err(FileError::Arch(audit));
        }
        if flags & !flags::ALL != 0 {
            return Err(FileError::Flags(flags));
        }
        let filter: Vec<_> = body
            .chunks_exact(INSTRUCTION)
            .map(|bytes| SockFilter {
                code: u16::from_le_bytes([bytes[0], bytes[1]]),
                jt: bytes[2],
                jf: bytes[3],
                k: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            })
            .collect();
        let whole = body.len() == INSTRUCTION * filter.len();
        if !whole || filter.len() as u64 != u64::from(len) || !(1..=MAX_LEN).contains(&filter.len()) {
            return Err(FileError::Length);
        }
        Ok(Program { filter, flags, notify: flags & flags::NEW_LISTENER != 0 })
    }
}

fn native_audit() -> u32 {
    Arch::native().map_or(0, |arch| arch.audit)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failure is the test's failure")]

    use super::*;

    fn program() -> Program {
        let filter = vec![
            SockFilter { code: 0x20, jt: 0, jf: 0, k: 4 },
            SockFilter { code: 6, jt: 1, jf: 2, k: 0x7fff_0000 },
        ];
        Program { filter, flags: flags::LOG | flags::NEW_LISTENER, notify: true }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Program::from_bytes(&program().to_bytes()), Ok(program()));
    }

    #[test]
    fn damage_is_noticed() {
        let good = program().to_bytes();
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            Program::from_bytes(&bytes)
        };
        assert_eq!(with(0, b'C'), Err(FileError::Magic));
        assert_eq!(with(8, 2), Err(FileError::Version(2)));
        assert!(matches!(with(12, 1), Err(FileError::Arch(_))));
        assert!(matches!(with(16, 1), Err(FileError::Flags(_))));
        assert_eq!(with(20, 1), Err(FileError::Length));
        assert_eq!(with(20, 3), Err(FileError::Length));
        for len in 0..good.len() {
            assert_eq!(Program::from_bytes(&good[..len]), Err(FileError::Length), "{len} bytes");
        }
        let mut empty = good[..HEADER].to_vec();
        empty[20] = 0;
        assert_eq!(Program::from_bytes(&empty), Err(FileError::Length));
        let mut long = good.clone();
        long.push(0);
        assert_eq!(Program::from_bytes(&long), Err(FileError::Length));
    }

    #[test]
    fn no_more_instructions_than_the_kernel_takes() {
        let one = program().filter[0];
        let of = |len| Program { filter: vec![one; len], flags: 0, notify: false };
        assert!(Program::from_bytes(&of(MAX_LEN).to_bytes()).is_ok());
        assert_eq!(Program::from_bytes(&of(MAX_LEN + 1).to_bytes()), Err(FileError::Length));
    }
}
