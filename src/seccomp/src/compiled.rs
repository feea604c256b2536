//! A filter that comes compiled: crun's annotation `run.oci.seccomp_bpf_data`.
//!
//! The text is base64 of an array of `struct sock_filter` in the byte order of the machine. Whether it
//! is a program the kernel says when it is loaded (seccomp(2)).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use creel_plan::spec::Seccomp;

use crate::error::Error;
use crate::flags;
use crate::program::{MAX_LEN, Program, SockFilter, op, ret};

const INSTRUCTION: usize = 8;

impl Program {
    /// Reads the filter; `profile` gives the flags to load it with.
    pub fn from_base64(text: &str, profile: Option<&Seccomp>) -> Result<Program, Error> {
        let wrong = |why: String| Error::Compiled { why };
        let bytes = STANDARD.decode(text.trim()).map_err(|error| wrong(format!("no base64: {error}")))?;
        if bytes.len() % INSTRUCTION != 0 {
            return Err(wrong(format!("{} bytes are no whole number of instructions", bytes.len())));
        }
        let filter: Vec<SockFilter> = bytes
            .chunks_exact(INSTRUCTION)
            .map(|bytes| SockFilter {
                code: u16::from_ne_bytes([bytes[0], bytes[1]]),
                jt: bytes[2],
                jf: bytes[3],
                k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            })
            .collect();
        if !(1..=MAX_LEN).contains(&filter.len()) {
            return Err(wrong(format!("expected 1 to {MAX_LEN} instructions, found {}", filter.len())));
        }
        let notify = filter.iter().any(|i| i.code == op::RETURN && i.k & ret::ACTION == ret::NOTIFY);
        let names = profile.and_then(|profile| profile.flags.as_deref());
        Ok(Program { filter, flags: flags::from_names(names, notify)?, notify })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn text(filter: &[(u16, u32)]) -> String {
        let bytes: Vec<u8> = filter
            .iter()
            .flat_map(|(code, k)| [&code.to_ne_bytes()[..], &[0, 0], &k.to_ne_bytes()].concat())
            .collect();
        STANDARD.encode(bytes)
    }

    #[test]
    fn instructions_are_taken_as_they_are() {
        let program = Program::from_base64(&text(&[(op::LOAD, 0), (op::RETURN, ret::ALLOW)]), None).unwrap();
        assert_eq!(program.filter.len(), 2);
        assert_eq!(program.filter[1], SockFilter { code: op::RETURN, jt: 0, jf: 0, k: ret::ALLOW });
        assert_eq!((program.flags, program.notify), (flags::SPEC_ALLOW, false));
    }

    #[test]
    fn a_filter_that_notifies_is_loaded_with_a_listener() {
        let flags = Some(vec!["SECCOMP_FILTER_FLAG_LOG".to_owned()]);
        let profile = Seccomp { flags, ..Seccomp::default() };
        let program = Program::from_base64(&text(&[(op::RETURN, ret::NOTIFY)]), Some(&profile)).unwrap();
        assert_eq!((program.flags, program.notify), (flags::LOG | flags::NEW_LISTENER, true));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for wrong in ["", "AAAA", "!", &text(&vec![(op::RETURN, 0); MAX_LEN + 1])] {
            let error = Program::from_base64(wrong, None).unwrap_err().to_string();
            assert!(error.starts_with(".annotations[\"run.oci.seccomp_bpf_data\"]: "), "{error}");
        }
    }
}
