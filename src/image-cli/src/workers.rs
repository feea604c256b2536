//! Several things at once, until one fails.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Error, Result};

/// Does `work` for each job on up to `threads` threads, or on this one. The first error ends the others: what is under way is
/// told by the flag, what was not begun is left.
pub fn each<J: Send>(
    jobs: impl IntoIterator<Item = J>,
    threads: usize,
    work: impl Fn(J, &AtomicBool) -> Result<()> + Sync,
) -> Result<()> {
    let jobs: VecDeque<J> = jobs.into_iter().collect();
    let threads = threads.min(jobs.len());
    let jobs = Mutex::new(jobs);
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    let stop = AtomicBool::new(false);
    let run = || {
        while !stop.load(Ordering::Relaxed) {
            let Some(job) = jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front() else { return };
            if let Err(error) = work(job, &stop) {
                stop.store(true, Ordering::Relaxed);
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    if threads == 1 {
        run();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(run);
            }
        });
    }
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_told_and_ends_the_rest() {
        let done = Mutex::new(0);
        let result = each(0..100, 3, |job, _| {
            *done.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            if job == 5 { Err(Error::msg("five")) } else { Ok(()) }
        });
        assert_eq!(result.map_err(|error| error.to_string()), Err("five".to_owned()));
        assert!(*done.lock().unwrap_or_else(PoisonError::into_inner) < 100);
    }
}
