//! Filters as files: what `create` leaves in the state directory for `exec`, and keeps for the next
//! container with the same section.
//!
//! All numbers are little-endian: magic (8 bytes), version, AUDIT_ARCH_* of the machine, flags,
//! number of instructions, lengths of the three texts (4 bytes each), then 8 bytes for each
//! instruction, then the texts: listenerPath, listenerMetadata, the section.

use std::fmt;

use crate::arch::Arch;
use crate::flags;
use crate::program::{Compiled, MAX_LEN, Program, SockFilter};

const MAGIC: [u8; 8] = *b"creelbpf";
const VERSION: u32 = 2;
const HEADER: usize = 36;
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
    /// A text that is not UTF-8.
    Text,
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
            FileError::Text => f.write_str("seccomp filter with a text that is not UTF-8"),
        }
    }
}

impl std::error::Error for FileError {}

impl Compiled {
    /// The filter as a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Compiled { program: Program { filter, flags, notify: _ }, .. } = self;
        let texts = [&self.listener_path, &self.listener_metadata, &self.source];
        let length = HEADER + INSTRUCTION * filter.len() + texts.iter().map(|text| text.len()).sum::<usize>();
        let mut bytes = Vec::with_capacity(length);
        bytes.extend(MAGIC);
        // compile() keeps the length at MAX_LEN or less; the texts are part of a config.json.
        for field in [VERSION, native_audit(), *flags, filter.len() as u32] {
            bytes.extend(field.to_le_bytes());
        }
        texts.iter().for_each(|text| bytes.extend((text.len() as u32).to_le_bytes()));
        for instruction in filter {
            bytes.extend(instruction.code.to_le_bytes());
            bytes.extend([instruction.jt, instruction.jf]);
            bytes.extend(instruction.k.to_le_bytes());
        }
        texts.iter().for_each(|text| bytes.extend(text.as_bytes()));
        bytes
    }

    /// Reads [`Compiled::to_bytes`] back. The instructions themselves are checked by the kernel.
    pub fn from_bytes(bytes: &[u8]) -> Result<Compiled, FileError> {
        let (header, body) = bytes.split_at_checked(HEADER).ok_or(FileError::Length)?;
        let (magic, fields) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(FileError::Magic);
        }
        let mut fields =
            fields.chunks_exact(4).map(|field| u32::from_le_bytes([field[0], field[1], field[2], field[3]]));
        let mut field = || fields.next().ok_or(FileError::Length);
        let (version, audit, flags, count) = (field()?, field()?, field()?, field()?);
        let lengths = [field()?, field()?, field()?];
        if version != VERSION {
            return Err(FileError::Version(version));
        }
        if audit != native_audit() {
            return Err(FileError::Arch(audit));
        }
        if flags & !flags::ALL != 0 {
            return Err(FileError::Flags(flags));
        }
        let count = usize::try_from(count).ok().filter(|count| (1..=MAX_LEN).contains(count));
        let (instructions, mut texts) =
            body.split_at_checked(count.ok_or(FileError::Length)? * INSTRUCTION).ok_or(FileError::Length)?;
        let filter = instructions
            .chunks_exact(INSTRUCTION)
            .map(|bytes| SockFilter {
                code: u16::from_le_bytes([bytes[0], bytes[1]]),
                jt: bytes[2],
                jf: bytes[3],
                k: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            })
            .collect();
        let mut text = |length: u32| {
            let (text, rest) = texts.split_at_checked(length as usize).ok_or(FileError::Length)?;
            texts = rest;
            std::str::from_utf8(text).map(str::to_owned).map_err(|_| FileError::Text)
        };
        let [listener_path, listener_metadata, source] = lengths;
        let compiled = Compiled {
            program: Program { filter, flags, notify: flags & flags::NEW_LISTENER != 0 },
            listener_path: text(listener_path)?,
            listener_metadata: text(listener_metadata)?,
            source: text(source)?,
        };
        if texts.is_empty() { Ok(compiled) } else { Err(FileError::Length) }
    }
}

fn native_audit() -> u32 {
    Arch::native().map_or(0, |arch| arch.audit)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failure is the test's failure")]

    use super::*;

    fn compiled() -> Compiled {
        let filter = vec![
            SockFilter { code: 0x20, jt: 0, jf: 0, k: 4 },
            SockFilter { code: 6, jt: 1, jf: 2, k: 0x7fff_0000 },
        ];
        Compiled {
            program: Program { filter, flags: flags::LOG | flags::NEW_LISTENER, notify: true },
            listener_path: "/run/agent".into(),
            listener_metadata: String::new(),
            source: "{}".into(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Compiled::from_bytes(&compiled().to_bytes()), Ok(compiled()));
    }

    #[test]
    fn damage_is_noticed() {
        let good = compiled().to_bytes();
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            Compiled::from_bytes(&bytes)
        };
        assert_eq!(with(0, b'C'), Err(FileError::Magic));
        assert_eq!(with(8, 1), Err(FileError::Version(1)));
        assert!(matches!(with(12, 1), Err(FileError::Arch(_))));
        assert!(matches!(with(16, 1), Err(FileError::Flags(_))));
        assert_eq!(with(20, 0), Err(FileError::Length));
        assert_eq!(with(20, 3), Err(FileError::Length));
        assert_eq!(with(24, 11), Err(FileError::Length));
        assert_eq!(with(35, 0xff), Err(FileError::Length));
        assert_eq!(with(good.len() - 1, 0xff), Err(FileError::Text));
        for len in 0..good.len() {
            assert_eq!(Compiled::from_bytes(&good[..len]), Err(FileError::Length), "{len} bytes");
        }
        let mut long = good.clone();
        long.push(0);
        assert_eq!(Compiled::from_bytes(&long), Err(FileError::Length));
    }

    #[test]
    fn no_more_instructions_than_the_kernel_takes() {
        let one = compiled().program.filter[0];
        let of = |len| Compiled {
            program: Program { filter: vec![one; len], flags: 0, notify: false },
            ..compiled()
        };
        assert!(Compiled::from_bytes(&of(MAX_LEN).to_bytes()).is_ok());
        assert_eq!(Compiled::from_bytes(&of(MAX_LEN + 1).to_bytes()), Err(FileError::Length));
    }
}
