//! One record of a CRI log file: `RFC3339Nano stream tags message`.

use k8s_openapi::jiff::Timestamp;

use super::options::LogOptions;

#[derive(Debug, PartialEq, Eq)]
struct Record<'a> {
    time: &'a str,
    stream: &'a str,
    partial: bool,
    message: &'a [u8],
}

/// Splits a record; `None` for what is no record (a line torn by a power cut).
fn parse(line: &[u8]) -> Option<Record<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let tags = parts.next()?;
    let message = parts.next().unwrap_or_default();
    // The first of the tags, which ':' separates, says whether the line goes on.
    let partial = match tags.split(|byte| *byte == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    matches!(stream, "stdout" | "stderr").then_some(Record { time, stream, partial, message })
}

/// Turns records into what the client reads; remembers what spans records.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// The last record was partial: the next one continues its line and gets no time of its own.
    continues: bool,
    written: u64,
}

impl Writer {
    /// Appends what is to be shown of `line` to `out`; false once the byte limit is reached.
    pub(super) fn write(&mut self, line: &[u8], options: &LogOptions, out: &mut Vec<u8>) -> bool {
        let Some(record) = parse(line) else { return true };
        if options.only.is_some_and(|only| only != record.stream) {
            return true;
        }
        if let Some(since) = options.since
            && record.time.parse::<Timestamp>().is_ok_and(|time| time < since)
        {
            return true;
        }
        let start = out.len();
        if options.timestamps && !self.continues {
            out.extend_from_slice(record.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(record.message);
        if !record.partial {
            out.push(b'\n');
        }
        self.continues = record.partial;
        let added = (out.len() - start) as u64;
        match options.limit {
            Some(limit) if self.written + added >= limit => {
                let keep = usize::try_from(limit - self.written).unwrap_or(usize::MAX);
                out.truncate(start.saturating_add(keep));
                self.written = limit;
                false
            }
            _ => {
                self.written += added;
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(lines: &[&str], options: &LogOptions) -> String {
        let (mut writer, mut out) = (Writer::default(), Vec::new());
        for line in lines {
            if !writer.write(line.as_bytes(), options, &mut out) {
                break;
            }
        }
        String::from_utf8(out).expect("text")
    }

    const LINES: [&str; 4] = [
        "2026-11-24T04:00:00.000000001Z stdout F one\n",
        "2026-11-24T04:00:01.000000001Z stderr P tw\n",
        "2026-11-24T04:00:02.000000001Z stderr F o\n",
        "2026-11-24T04:00:03.000000001Z stdout F \n",
    ];

    #[test]
    fn partial_records_become_one_line_with_one_time() {
        assert_eq!(shown(&LINES, &LogOptions::default()), "one\ntwo\n\n");
        let options = LogOptions { timestamps: true, only: Some("stderr"), ..LogOptions::default() };
        assert_eq!(shown(&LINES, &options), "2026-11-24T04:00:01.000000001Z two\n");
    }

    #[test]
    fn since_and_limit_cut() {
        let since = Some("2026-11-24T04:00:02Z".parse().expect("time"));
        assert_eq!(shown(&LINES, &LogOptions { since, ..LogOptions::default() }), "o\n\n");
        assert_eq!(shown(&LINES, &LogOptions { limit: Some(5), ..LogOptions::default() }), "one\nt");
    }

    #[test]
    fn torn_lines_are_passed_over() {
        assert_eq!(shown(&["2026-11-24T04:", "garbage\n", "a b c d\n", LINES[0]], &LogOptions::default()), "one\n");
    }
}
