//! What is wrong with a configuration, and where.

use std::fmt;

/// The configuration is wrong: the field and the reason, printed as `{at}: {why}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Path of the field as jq takes it: `.mounts[3].options[1]`; `.` is the whole document.
    pub at: String,
    /// Lower case, no full stop.
    pub why: String,
}

impl Invalid {
    /// A field and what is wrong with it.
    pub fn new(at: impl Into<String>, why: impl Into<String>) -> Self {
        Self { at: at.into(), why: why.into() }
    }

    /// A word that is not one of `known`, with the nearest one as a hint.
    pub fn unknown(at: impl Into<String>, what: &str, word: &str, known: &[&str]) -> Self {
        let hint = match did_you_mean(word, known.iter().copied()) {
            Some(near) => format!("; did you mean {near:?}"),
            None if known.len() <= 8 => format!(", expected one of {}", known.join(", ")),
            None => String::new(),
        };
        Self::new(at, format!("unknown {what} {word:?}{hint}"))
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.why)
    }
}

impl std::error::Error for Invalid {}

/// jq path of a key below `at`: `.linux.sysctl["net.ipv4.ip_forward"]`.
pub fn key_path(at: &str, key: &str) -> String {
    let mut chars = key.chars();
    let plain = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain { format!("{at}.{key}") } else { format!("{at}[{}]", serde_json::Value::from(key)) }
}

/// The candidate nearest to `word`, if it is near enough to be meant: at most one edit for every
/// three letters, two at the most. Words longer than 64 bytes have none.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 64 {
        return None;
    }
    let allowed = (word.chars().count() / 3).clamp(1, 2);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(edits, candidate)| *edits <= allowed && *edits < candidate.chars().count())
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance without regard to case, one row at a time.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().map(|c| c.to_ascii_lowercase()).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().map(|c| c.to_ascii_lowercase()).enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        for (b, cell) in right.iter().zip(row.iter_mut().skip(1)) {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = *cell;
            *cell = replaced.min(diagonal + 1).min(before + 1);
            before = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_path_and_reason() {
        let invalid = Invalid::new(".process.args", "must not be empty");
        assert_eq!(invalid.to_string(), ".process.args: must not be empty");
    }

    #[test]
    fn keys_that_are_not_words_are_quoted() {
        assert_eq!(
            key_path(".linux.sysctl", "net.ipv4.ip_forward"),
            r#".linux.sysctl["net.ipv4.ip_forward"]"#
        );
        assert_eq!(key_path(".linux.timeOffsets", "monotonic"), ".linux.timeOffsets.monotonic");
        assert_eq!(key_path("", "a\"b"), r#"["a\"b"]"#);
        assert_eq!(key_path("", "1"), r#"["1"]"#);
    }

    #[test]
    fn distance_counts_edits() {
        for (left, right, edits) in
            [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("rro2", "rro", 1), ("RO", "ro", 0)]
        {
            assert_eq!(distance(left, right), edits, "{left} {right}");
            assert_eq!(distance(right, left), edits, "{right} {left}");
        }
    }

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let kinds = ["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"];
        assert_eq!(did_you_mean("netwrok", kinds), Some("network"));
        assert_eq!(did_you_mean("mounts", kinds), Some("mount"));
        assert_eq!(did_you_mean("filesystem", kinds), None);
        assert_eq!(did_you_mean("x", ["r"]), None);
        assert_eq!(did_you_mean(&"x".repeat(100_000), kinds), None);
    }

    #[test]
    fn unknown_word_names_the_near_one_or_the_few_known() {
        let near = Invalid::unknown(".a", "thing", "alpa", &["alpha", "beta"]);
        assert_eq!(near.to_string(), r#".a: unknown thing "alpa"; did you mean "alpha""#);
        let far = Invalid::unknown(".a", "thing", "omega", &["alpha", "beta"]);
        assert_eq!(far.to_string(), r#".a: unknown thing "omega", expected one of alpha, beta"#);
    }
}
