//! The two date formats of the protocol, as seconds since 1970 in UTC: `Retry-After` and `Date` have
//! HTTP's (RFC 9110, 5.6.7), tokens have RFC 3339's.

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the one form that may be sent today.
pub(crate) fn parse_http(text: &str) -> Option<i64> {
    let (_, rest) = text.trim().split_once(", ")?;
    let mut words = rest.split(' ');
    let day = number(words.next()?)?;
    let month = words.next()?;
    let month = 1 + i64::try_from(MONTHS.iter().position(|name| *name == month)?).ok()?;
    let year = number(words.next()?)?;
    let time = clock(words.next()?)?;
    (words.next()? == "GMT" && words.next().is_none()).then_some(())?;
    Some(days(year, month, day)? * 86400 + time)
}

/// `2026-01-02T03:04:05.123Z` or with an offset; the fraction is dropped.
pub(crate) fn parse_rfc3339(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut parts = date.splitn(3, '-').map(number);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let zone = time.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = time.split_at(zone);
    let time = clock(time.split('.').next()?)?;
    let offset = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign, ..] => {
            let (hours, minutes) = zone[1..].split_once(':')?;
            let seconds = number(hours)? * 3600 + number(minutes)? * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        [] => return None,
    };
    Some(days(year, month, day)? * 86400 + time - offset)
}

/// `08:49:37`, in seconds of the day; a leap second counts as the one before it.
fn clock(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, ':').map(number);
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    (hours < 24 && minutes < 60 && seconds < 61).then_some(hours * 3600 + minutes * 60 + seconds.min(59))
}

fn number(text: &str) -> Option<i64> {
    (!text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit())).then_some(())?;
    text.parse().ok()
}

/// Days since 1970-01-01 in the Gregorian calendar, counting years from March so that the leap day is
/// a year's last.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    ((1..=12).contains(&month) && (1..=31).contains(&day)).then_some(())?;
    let year = if month <= 2 { year - 1 } else { year };
    let in_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(year * 365 + leaps + in_year - 719_468)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{parse_http, parse_rfc3339};

    #[test]
    fn both_formats_give_the_same_second() {
        let cases = [
            ("Thu, 01 Jan 1970 00:00:00 GMT", "1970-01-01T00:00:00Z", 0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", "1994-11-06T10:49:37.25+02:00", 784_111_777),
            ("Thu, 29 Feb 2024 23:59:59 GMT", "2024-02-29T18:29:59-05:30", 1_709_251_199),
        ];
        for (http, rfc3339, seconds) in cases {
            assert_eq!(parse_http(http), Some(seconds), "{http}");
            assert_eq!(parse_rfc3339(rfc3339), Some(seconds), "{rfc3339}");
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in ["", "120", "Sun, 06 Now 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 CET"] {
            assert_eq!(parse_http(text), None, "{text}");
        }
        for text in ["", "2024-02-29", "2024-13-01T00:00:00Z", "2024-02-29T25:00:00Z", "2024-02-29T00:00:00"]
        {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = (parse_http(&text), parse_rfc3339(&text));
        }
    }
}
