//! Lists of numbers such as `0-3,7`: CPUs (cpuset(7), "List format") and memory nodes.

use std::fmt;

/// Highest number: the kernel can be built for fewer CPUs and nodes than that.
const MAX: u32 = 64 * 1024 - 1;

/// Numbers as `(first, last)`, in the order written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u32, u32)>);

impl Ranges {
    /// Reads a list; empty words between commas count for nothing.
    pub fn parse(text: &str) -> Result<Ranges, String> {
        let mut ranges = Vec::new();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            let number = |digits: &str| match digits.parse::<u32>() {
                Ok(number) if number <= MAX && digits.bytes().all(|b| b.is_ascii_digit()) => Ok(number),
                Ok(_) | Err(_) => Err(format!("{digits:?} is not a number up to {MAX}")),
            };
            let range = (number(first)?, number(last)?);
            if range.0 > range.1 {
                return Err(format!("{word:?} ends before it begins"));
            }
            ranges.push(range);
        }
        Ok(Ranges(ranges))
    }

    /// Names no number.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many different numbers.
    pub fn count(&self) -> u32 {
        self.mask().iter().map(|word| word.count_ones()).sum()
    }

    /// As a bit mask, lowest number first, as long as its highest number needs.
    pub fn mask(&self) -> Vec<u64> {
        let highest = self.0.iter().map(|range| range.1).max();
        let mut words = vec![0u64; highest.map_or(0, |n| n as usize / 64 + 1)];
        for number in self.0.iter().flat_map(|&(first, last)| first..=last) {
            if let Some(word) = words.get_mut(number as usize / 64) {
                *word |= 1 << (number % 64);
            }
        }
        words
    }

    /// The same in the bytes of the machine, as sched_setaffinity(2) takes it.
    pub fn bytes(&self) -> Vec<u8> {
        self.mask().iter().flat_map(|word| word.to_ne_bytes()).collect()
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn lists_become_masks() {
        for (text, mask, count) in [
            ("", vec![], 0),
            (",", vec![], 0),
            ("0", vec![1], 1),
            ("0-2,1", vec![7], 3),
            ("1,65", vec![2, 2], 2),
            (" 3 ", vec![8], 1),
        ] {
            let ranges = Ranges::parse(text).unwrap();
            assert_eq!((ranges.mask(), ranges.count()), (mask, count), "{text:?}");
        }
        assert_eq!(Ranges::parse("64").unwrap().bytes().len(), 16);
        assert_eq!(Ranges::parse("3,0-1").unwrap().to_string(), "3,0-1");
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in ["a", "1-", "-1", "3-2", "0-9876543210", "65536", "1-2-3", "+1", "0x1"] {
            assert!(Ranges::parse(text).is_err(), "{text:?}");
        }
    }
}
