//! Bars on a terminal: a line for each layer that is on its way, and one for all.
//!
//! A thread draws them ten times a second over what it drew last. The terminal's size is looked at each time.
//! When it has become narrower, lines that were drawn for the old width may have been folded by it, so how
//! far to go up is counted from their lengths. A layer that is done is written once more, above the bars,
//! where it stays.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Counts;
use crate::output;

/// Between two drawings.
const FRAME: Duration = Duration::from_millis(100);

/// Bytes a second below which nobody wants to know how long it takes.
const SLOW: f64 = 1000.0;

/// Characters of the longest bar, and of the shortest that says anything.
const WIDEST: usize = 30;
const NARROWEST: usize = 8;

/// What a terminal is taken for that does not tell its size.
const USUAL: (usize, usize) = (80, 24);

/// A layer as it is shown.
#[derive(Debug, Clone, PartialEq)]
struct View {
    short: String,
    size: u64,
    read: u64,
    /// Bytes a second, lately.
    rate: f64,
    begun: bool,
    done: bool,
}

/// What was drawn last, and what the rates come from.
#[derive(Default)]
struct Screen {
    /// Characters of each line below the finished ones.
    lengths: Vec<usize>,
    /// Layers that were written for good.
    finished: Vec<bool>,
    last: Option<Instant>,
    seen: Vec<(u64, f64)>,
}

/// Does the work, and draws meanwhile.
pub(super) fn during<T>(layers: &Mutex<Vec<Arc<Counts>>>, work: impl FnOnce() -> T) -> T {
    let over = (Mutex::new(false), Condvar::new());
    std::thread::scope(|scope| {
        scope.spawn(|| draw_until(layers, &over));
        let result = work();
        *over.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        over.1.notify_all();
        result
    })
}

fn draw_until(layers: &Mutex<Vec<Arc<Counts>>>, over: &(Mutex<bool>, Condvar)) {
    let mut screen = Screen::default();
    let mut ended = over.0.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let last = *ended;
        let views = screen.look(&layers.lock().unwrap_or_else(PoisonError::into_inner));
        let text = screen.frame(&views, terminal_size(), last);
        // Nobody is told when nobody looks.
        drop(std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()));
        if last {
            return;
        }
        ended = over.1.wait_timeout(ended, FRAME).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Columns and rows.
fn terminal_size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(rustix::stdio::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        Ok(_) | Err(_) => USUAL,
    }
}

impl Screen {
    /// Takes the counts as they stand, and the rates since the last time.
    fn look(&mut self, layers: &[Arc<Counts>]) -> Vec<View> {
        let now = Instant::now();
        let since = self.last.replace(now).map_or(0.0, |last| (now - last).as_secs_f64());
        self.seen.resize(layers.len(), (0, 0.0));
        let view = |(layer, seen): (&Arc<Counts>, &mut (u64, f64))| {
            let read = layer.read.load(Ordering::Relaxed);
            let (before, rate) = *seen;
            let lately = if since > 0.0 { read.saturating_sub(before) as f64 / since } else { 0.0 };
            // The last second and a half counts most.
            let rate = if rate == 0.0 { lately } else { rate * 0.93 + lately * 0.07 };
            *seen = (read, rate);
            View {
                short: layer.short.clone(),
                size: layer.size,
                read: layer.had.load(Ordering::Relaxed) + read,
                rate,
                begun: layer.begun.load(Ordering::Relaxed),
                done: layer.done.load(Ordering::Relaxed),
            }
        };
        layers.iter().zip(&mut self.seen).map(view).collect()
    }

    /// The text that makes the terminal show the layers; the last one leaves no bars.
    fn frame(&mut self, views: &[View], (columns, rows): (usize, usize), last: bool) -> String {
        // Up to the first line of the bars, then all below is cleared (ECMA-48, CUU and ED).
        let up: usize = self.lengths.iter().map(|length| length.div_ceil(columns.max(1)).max(1)).sum();
        let mut text = if up == 0 { String::new() } else { format!("\x1b[{up}A\x1b[J") };
        self.finished.resize(views.len(), false);
        for (view, finished) in views.iter().zip(&mut self.finished) {
            if view.done && !*finished {
                *finished = true;
                // A String takes everything.
                writeln!(
                    text,
                    "{}",
                    cut(&format!("{} {:>8} done", view.short, output::size(view.size)), columns)
                )
                .ok();
            }
        }
        let lines = if last { Vec::new() } else { lines(views, columns, rows) };
        self.lengths = lines.iter().map(|line| line.chars().count()).collect();
        for line in lines {
            writeln!(text, "{line}").ok();
        }
        text
    }
}

/// The lines for what is not done yet: as many as the terminal has room for, and one of all.
fn lines(views: &[View], columns: usize, rows: usize) -> Vec<String> {
    let open: Vec<&View> = views.iter().filter(|view| !view.done).collect();
    if open.is_empty() {
        return Vec::new();
    }
    let running: Vec<&View> = open.iter().copied().filter(|view| view.begun).collect();
    let room = rows.saturating_sub(3).max(1);
    let mut lines: Vec<String> =
        running.iter().take(room).map(|view| bar(&view.short, view, columns)).collect();
    let total = View {
        short: String::new(),
        size: views.iter().map(|view| view.size).sum(),
        read: views.iter().map(|view| if view.done { view.size } else { view.read.min(view.size) }).sum(),
        rate: running.iter().map(|view| view.rate).sum(),
        begun: true,
        done: false,
    };
    let label = format!("{} of {} done", views.len() - open.len(), views.len());
    lines.push(bar(&format!("{label:<12}"), &total, columns));
    lines
}

/// One line: what it is, a bar where there is room for one, how far it is, how fast, and how long it takes still.
fn bar(label: &str, view: &View, columns: usize) -> String {
    let read = view.read.min(view.size);
    let left = (view.size - read) as f64;
    let rate = format!("{}/s", output::size(view.rate as u64));
    let counts = format!("{} of {}", output::size(view.read), output::size(view.size));
    let wait = if view.rate >= SLOW { duration(left / view.rate) } else { String::new() };
    let percent = (read * 100).checked_div(view.size).unwrap_or(100);
    let full = format!("{counts:>18} {rate:>10} {wait:>6}");
    // One column stays free: some terminals fold a line that fills the last one.
    let width = columns.saturating_sub(1);
    let room = width.saturating_sub(label.chars().count() + full.chars().count() + 4);
    if room >= NARROWEST {
        let room = room.min(WIDEST);
        let filled =
            usize::try_from(u128::from(read) * room as u128 / u128::from(view.size.max(1))).unwrap_or(0);
        let bar = format!("{}{}", "#".repeat(filled), ".".repeat(room - filled.min(room)));
        return cut(format!("{label} [{bar}] {full}").trim_end(), columns);
    }
    cut(&format!("{label} {percent:>3}% {:>7} {rate:>9}", output::size(view.read)), columns)
}

/// At most one character less than the terminal is wide.
fn cut(line: &str, columns: usize) -> String {
    line.chars().take(columns.saturating_sub(1)).collect()
}

fn duration(seconds: f64) -> String {
    let seconds = seconds.min(359_999.0) as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!("{} h", seconds.div_ceil(3600)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(short: &str, size: u64, read: u64) -> View {
        View { short: short.into(), size, read, rate: 10e6, begun: true, done: read == size }
    }

    #[test]
    fn each_width_has_a_line_that_fits() {
        let views =
            [view("a1b2c3d4e5f6", 100_000_000, 25_000_000), view("ffffffffffff", 2_000_000, 1_000_000)];
        for columns in [1, 20, 40, 60, 80, 200] {
            for line in lines(&views, columns, 24) {
                assert!(
                    line.chars().count() < columns.max(1) + usize::from(columns == 1),
                    "{columns}: {line:?}"
                );
            }
        }
        assert_eq!(lines(&views, 40, 24)[0], "a1b2c3d4e5f6  25% 25.0 MB 10.0 MB/s");
        assert_eq!(
            lines(&views, 80, 24)[0],
            "a1b2c3d4e5f6 [######.....................]  25.0 MB of 100 MB  10.0 MB/s    7 s"
        );
        assert_eq!(
            lines(&views, 80, 24)[2],
            "0 of 2 done  [######.....................]  26.0 MB of 102 MB  20.0 MB/s    3 s"
        );
    }

    #[test]
    fn more_layers_than_rows_leave_the_total_in_sight() {
        let views: Vec<View> = (0..50).map(|_| view("a1b2c3d4e5f6", 10, 5)).collect();
        assert_eq!(lines(&views, 80, 10).len(), 8);
        assert_eq!(lines(&views, 80, 1).len(), 2);
    }

    #[test]
    fn finished_layers_stay_above_and_the_last_frame_has_no_bars() {
        let mut screen = Screen::default();
        let mut views = vec![view("aaaaaaaaaaaa", 10, 5), view("bbbbbbbbbbbb", 10, 5)];
        let first = screen.frame(&views, (80, 24), false);
        assert!(!first.contains('\x1b') && first.lines().count() == 3, "{first:?}");
        views[0] = view("aaaaaaaaaaaa", 10, 10);
        let second = screen.frame(&views, (80, 24), false);
        assert!(second.starts_with("\x1b[3A\x1b[Jaaaaaaaaaaaa     10 B done\nbbbbbbbbbbbb ["), "{second:?}");
        views[1] = view("bbbbbbbbbbbb", 10, 10);
        assert_eq!(screen.frame(&views, (80, 24), true), "\x1b[2A\x1b[Jbbbbbbbbbbbb     10 B done\n");
    }

    #[test]
    fn lines_that_a_narrower_terminal_has_folded_are_gone_over() {
        let mut screen = Screen::default();
        let views = [view("aaaaaaaaaaaa", 10, 5)];
        screen.frame(&views, (80, 24), false);
        let lengths: usize = screen.lengths.iter().map(|length| length.div_ceil(30)).sum();
        assert!(screen.frame(&views, (30, 24), false).starts_with(&format!("\x1b[{lengths}A\x1b[J")));
        assert!(lengths > 2);
    }
}
