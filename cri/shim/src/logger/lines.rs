//! The CRI log format: `TIME stdout|stderr P|F TEXT`, one line of output a line.
//!
//! Output longer than [`MAX`] without a newline is split: parts are marked P, the rest F. A line that is not ended waits
//! for its end; at the end of the stream it is written as P, for no newline ever came.

/// The longest part of a line, in bytes.
pub(super) const MAX: usize = 16 << 10;

/// `2006-01-02T15:04:05.000000000Z`.
pub(super) type Time = [u8; 30];

#[derive(Debug, Clone, Copy)]
enum Tag {
    Partial,
    Full,
}

/// A stream's line that has begun.
#[derive(Debug, Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// Takes output and appends the finished lines to `log`.
    pub(super) fn feed(&mut self, mut output: &[u8], stream: &str, time: &Time, log: &mut Vec<u8>) {
        while let Some(end) = output.iter().position(|&byte| byte == b'\n') {
            self.take(&output[..end], stream, time, log);
            write(log, time, stream, Tag::Full, &self.begun);
            self.begun.clear();
            output = &output[end + 1..];
        }
        self.take(output, stream, time, log);
        if self.begun.is_empty() {
            // Idle streams hold no memory.
            self.begun = Vec::new();
        }
    }

    /// The stream has ended.
    pub(super) fn end(&mut self, stream: &str, time: &Time, log: &mut Vec<u8>) {
        if !self.begun.is_empty() {
            write(log, time, stream, Tag::Partial, &self.begun);
            self.begun = Vec::new();
        }
    }

    /// Appends to the line; what is past [`MAX`] pushes a part out.
    fn take(&mut self, mut text: &[u8], stream: &str, time: &Time, log: &mut Vec<u8>) {
        while self.begun.len() + text.len() > MAX {
            let (part, rest) = text.split_at(MAX - self.begun.len());
            self.begun.extend_from_slice(part);
            write(log, time, stream, Tag::Partial, &self.begun);
            self.begun.clear();
            text = rest;
        }
        self.begun.extend_from_slice(text);
    }
}

fn write(log: &mut Vec<u8>, time: &Time, stream: &str, tag: Tag, text: &[u8]) {
    log.extend_from_slice(time);
    log.push(b' ');
    log.extend_from_slice(stream.as_bytes());
    log.extend_from_slice(match tag {
        Tag::Partial => b" P ",
        Tag::Full => b" F ",
    });
    log.extend_from_slice(text);
    log.push(b'\n');
}

/// A time in nanoseconds since the epoch, in UTC.
pub(super) fn time(nanoseconds: i64) -> Time {
    let seconds = nanoseconds.div_euclid(1_000_000_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    for (at, digits, value) in [
        (0, 4, year),
        (5, 2, month),
        (8, 2, day),
        (11, 2, second / 3600),
        (14, 2, second / 60 % 60),
        (17, 2, second % 60),
        (20, 9, nanoseconds.rem_euclid(1_000_000_000)),
    ] {
        let mut value = value;
        for digit in text[at..at + digits].iter_mut().rev() {
            *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
            value /= 10;
        }
    }
    text
}

/// Year, month and day of a day since 1970-01-01 in the Gregorian calendar. Years are counted from March, so that the
/// leap day is a year's last, in cycles of 400 years, which all have equally many days.
fn date(days: i64) -> (i64, i64, i64) {
    const CYCLE: i64 = 146_097;
    // From 0000-03-01.
    let days = days + 719_468;
    let (cycle, day) = (days.div_euclid(CYCLE), days.rem_euclid(CYCLE));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (cycle * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: &[u8; 30] = b"2026-11-24T12:00:00.000000001Z";

    fn fed(parts: &[&[u8]]) -> String {
        let (mut lines, mut log) = (Lines::default(), Vec::new());
        for part in parts {
            lines.feed(part, "stdout", NOON, &mut log);
        }
        lines.end("stdout", NOON, &mut log);
        String::from_utf8(log).expect("text").replace("2026-11-24T12:00:00.000000001Z stdout ", "")
    }

    #[test]
    fn lines_are_joined_and_split() {
        assert_eq!(fed(&[b"a\nb", b"c\n", b"\n"]), "F a\nF bc\nF \n");
        assert_eq!(fed(&[b"no end"]), "P no end\n");
        let long = "x".repeat(MAX);
        // A line of exactly the most stays whole.
        assert_eq!(fed(&[long.as_bytes(), b"\n"]), format!("F {long}\n"));
        assert_eq!(fed(&[long.as_bytes(), b"yz\n"]), format!("P {long}\nF yz\n"));
        let longer = format!("{long}{long}tail\nnext\n");
        assert_eq!(fed(&[longer.as_bytes()]), format!("P {long}\nP {long}\nF tail\nF next\n"));
    }

    #[test]
    fn times_are_what_date_prints() {
        let text = |ns| String::from_utf8(time(ns).to_vec()).expect("text");
        assert_eq!(text(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(text(951_782_399_999_999_999), "2000-02-28T23:59:59.999999999Z");
        assert_eq!(text(951_782_400_000_000_000), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(text(951_868_800_000_000_000), "2000-03-01T00:00:00.000000000Z");
        assert_eq!(text(1_795_521_600_000_000_001), "2026-11-24T12:00:00.000000001Z");
        assert_eq!(text(4_102_444_799_000_000_000), "2099-12-31T23:59:59.000000000Z");
        assert_eq!(text(-1), "1969-12-31T23:59:59.999999999Z");
    }
}
