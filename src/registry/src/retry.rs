//! When to ask again, and how long to wait before.
//!
//! Only what may pass by itself is asked again: 408, 429 and 5xx, a connection that broke, a server that
//! went silent. The wait doubles, with jitter so that many clients of one outage do not come back at
//! once; a server's own `Retry-After` goes before it, up to a limit past which the user should decide.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Fault};

/// How often and how patiently.
#[derive(Clone)]
pub struct Retry {
    /// Tries in all, at least one.
    pub attempts: u32,
    /// The first wait; each further one is twice as long.
    pub first: Duration,
    /// No wait of creel's own is longer.
    pub longest: Duration,
    /// No `Retry-After` longer than this is waited for.
    pub patience: Duration,
    /// How to wait: a test records instead.
    pub pause: Arc<dyn Fn(Duration) + Send + Sync>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 5,
            first: Duration::from_millis(500),
            longest: Duration::from_secs(30),
            patience: Duration::from_secs(120),
            pause: Arc::new(std::thread::sleep),
        }
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("attempts", &self.attempts).finish_non_exhaustive()
    }
}

impl Retry {
    /// Runs `attempt` until it succeeds, fails for good, or was tried often enough.
    pub(crate) fn run<T>(&self, mut attempt: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
        let mut failed = 0;
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(error) => {
                    failed += 1;
                    self.wait(failed, error)?;
                }
            }
        }
    }

    /// Waits after the `failed`th failure, or gives its error back when it is the last.
    pub(crate) fn wait(&self, failed: u32, error: Error) -> Result<(), Error> {
        match self.delay(failed, &error) {
            Some(delay) => {
                (self.pause)(delay);
                Ok(())
            }
            None => Err(error),
        }
    }

    fn delay(&self, failed: u32, error: &Error) -> Option<Duration> {
        if failed >= self.attempts || !is_transient(error) {
            return None;
        }
        if let Some(seconds) = retry_after(error) {
            let asked = Duration::from_secs(seconds);
            return (asked <= self.patience).then_some(asked);
        }
        let full = self.first.saturating_mul(1 << (failed - 1).min(16)).min(self.longest);
        // Between half and all of it; the keys of RandomState are random, which is all jitter needs.
        let random = RandomState::new().hash_one(failed) % 512;
        Some(full / 2 + full.mul_f64(f64::from(u32::try_from(random).unwrap_or(0)) / 1024.0))
    }
}

/// The wish of the server, or of the registry itself where mirrors were asked too.
fn retry_after(error: &Error) -> Option<u64> {
    if let Error::Everywhere(errors) = error {
        return errors.last().and_then(retry_after);
    }
    if let Error::Status { retry_after, .. } = error { *retry_after } else { None }
}

/// Whether the same request may succeed a little later.
pub(crate) fn is_transient(error: &Error) -> bool {
    match error {
        Error::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
        Error::Unreachable { fault, .. } => matches!(fault, Fault::Timeout | Fault::Broken),
        // What the registry itself has answered for good does not change by a mirror's recovery.
        Error::Everywhere(errors) => {
            let last = errors.last();
            last.is_some_and(|last| is_transient(last) || last.status().is_none())
                && errors.iter().any(is_transient)
        }
        Error::Denied { .. }
        | Error::TooLarge { .. }
        | Error::WrongDigest { .. }
        | Error::WrongSize { .. }
        | Error::Malformed { .. }
        | Error::Redirect { .. }
        | Error::Blocked { .. }
        | Error::Policy { .. }
        | Error::File { .. }
        | Error::Helper { .. }
        | Error::Source { .. }
        | Error::Invalid(_) => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::Retry;
    use crate::error::Error;

    fn status(status: u16, retry_after: Option<u64>) -> Error {
        let (host, request, reason) = ("a.example".into(), "GET /v2/".into(), String::new());
        Error::Status { host, request, status, reason, retry_after }
    }

    fn run(errors: Vec<Error>) -> (bool, usize, Vec<Duration>) {
        let waits = Arc::new(Mutex::new(Vec::new()));
        let kept = waits.clone();
        let pause = Arc::new(move |wait| kept.lock().unwrap().push(wait));
        let retry = Retry { pause, ..Retry::default() };
        let mut errors = errors.into_iter();
        let mut tries = 0;
        let result = retry.run(|| {
            tries += 1;
            errors.next().map_or(Ok(()), Err)
        });
        let waits = waits.lock().unwrap().clone();
        (result.is_ok(), tries, waits)
    }

    #[test]
    fn waits_double_with_jitter_and_end() {
        let (ok, tries, waits) = run((0..9).map(|_| status(503, None)).collect());
        assert!(!ok);
        assert_eq!((tries, waits.len()), (5, 4));
        for (n, wait) in waits.iter().enumerate() {
            let full = Duration::from_millis(500 << n);
            assert!(*wait >= full / 2 && *wait <= full, "{n}: {wait:?}");
        }
    }

    #[test]
    fn the_servers_wish_is_followed_within_reason() {
        let (ok, tries, waits) = run(vec![status(429, Some(7)), status(503, Some(0))]);
        assert_eq!((ok, tries, waits), (true, 3, vec![Duration::from_secs(7), Duration::ZERO]));
        let (ok, tries, waits) = run(vec![status(429, Some(3600))]);
        assert_eq!((ok, tries, waits.len()), (false, 1, 0));
    }

    #[test]
    fn the_registrys_answer_counts_and_not_its_mirrors() {
        let gone = || Error::Unreachable {
            host: "m.example".into(),
            fault: crate::error::Fault::Refused,
            cause: "connection refused".into(),
        };
        let (ok, tries, _) = run(vec![Error::Everywhere(vec![status(503, None), status(404, None)])]);
        assert_eq!((ok, tries), (false, 1));
        let (ok, tries, _) = run(vec![Error::Everywhere(vec![status(503, None), gone()])]);
        assert_eq!((ok, tries), (true, 2));
        let (ok, _, waits) = run(vec![Error::Everywhere(vec![gone(), status(429, Some(9))])]);
        assert_eq!((ok, waits), (true, vec![Duration::from_secs(9)]));
    }

    #[test]
    fn what_stays_wrong_is_asked_once() {
        for error in [status(404, None), status(400, Some(1)), Error::Invalid("x".into())] {
            let (ok, tries, _) = run(vec![error]);
            assert_eq!((ok, tries), (false, 1));
        }
    }
}
