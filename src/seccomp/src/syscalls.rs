//! Names and numbers of system calls, from the libseccomp of the machine that built creel (`build.rs`).

/// Of the calls of [`names`], in their order.
pub(crate) type Numbers = [i32; COUNT];

/// For a name that libseccomp does not know on an architecture.
const NONE: i32 = i32::MIN;

include!(concat!(env!("OUT_DIR"), "/syscalls.rs"));

/// The number of a call in the table of an architecture; negative for one that has none of its own there.
pub(crate) fn number(numbers: &Numbers, name: &str) -> Option<i32> {
    let (mut low, mut high) = (0, COUNT);
    while low < high {
        let middle = usize::midpoint(low, high);
        match nth(middle).cmp(name) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => return Some(numbers[middle]).filter(|&number| number != NONE),
        }
    }
    None
}

/// The names stand in one text, one after the other: a table of strings would cost a relocation each.
fn nth(index: usize) -> &'static str {
    let start = index.checked_sub(1).map_or(0, |before| ENDS[before]);
    &NAMES[usize::from(start)..usize::from(ENDS[index])]
}

/// Every name, in order.
#[cfg(test)]
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    (0..COUNT).map(nth)
}
