//! Signal names for `kill` (signal(7)).

/// Names by number, for the architectures creel supports (x86_64 and aarch64 number them alike).
const NAMES: [(&str, i32); 34] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// First and last realtime signal that a program may use: glibc keeps 32 and 33 for itself.
const REALTIME: std::ops::RangeInclusive<i32> = 34..=64;

/// Reads a signal: a number, which the kernel judges, or a name in any case with or without `SIG`.
pub fn parse(text: &str) -> Result<i32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number)
        .or_else(|| realtime(name))
        .ok_or_else(|| format!("unknown signal {text:?}"))
}

/// `RTMIN`, `RTMIN+n`, `RTMAX`, `RTMAX-n`.
fn realtime(name: &str) -> Option<i32> {
    let offset = |digits: &str| match digits.as_bytes() {
        [b'0'..=b'9', ..] => digits.parse::<u8>().ok().map(i32::from),
        _ => None,
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        let plus = if rest.is_empty() { Some(0) } else { offset(rest.strip_prefix('+')?) };
        REALTIME.start() + plus?
    } else {
        let rest = name.strip_prefix("RTMAX")?;
        let minus = if rest.is_empty() { Some(0) } else { offset(rest.strip_prefix('-')?) };
        REALTIME.end() - minus?
    };
    REALTIME.contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn names_and_numbers_are_read_as_runc_reads_them() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("Usr1", 10),
            ("9", 9),
            ("0", 0),
            ("-9", -9),
            ("37", 37),
            ("SIGRTMIN", 34),
            ("RTMIN+3", 37),
            ("sigrtmax-1", 63),
        ] {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
    }

    #[test]
    fn an_unknown_name_is_quoted_in_the_error() {
        for text in ["NOSIG", "SIG", "SIGSIGTERM", "RTMIN+31", "RTMAX-31", "RTMIN+", "RTMIN++1", "9x"] {
            assert_eq!(parse(text), Err(format!("unknown signal {text:?}")));
        }
        assert_eq!(parse(""), Err("unknown signal \"\"".to_owned()));
    }
}
