//! Pressure stall information (the kernel's accounting/psi).

/// What tasks of a cgroup have waited for; `None` where the kernel does not say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Pressure {
    pub cpu: Option<Stall>,
    pub memory: Option<Stall>,
    pub io: Option<Stall>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stall {
    /// While some of its tasks waited.
    pub some: Window,
    /// While all of them did; kernels before 5.13 don't say it of CPUs.
    pub full: Option<Window>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Nanoseconds, so far.
    pub total_ns: u64,
    /// Percent of the last 10, 60, 300 seconds.
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
}

pub(super) fn parse(text: &str) -> Option<Stall> {
    let line = |kind: &str| text.lines().find_map(|line| window(line.strip_prefix(kind)?));
    Some(Stall { some: line("some ")?, full: line("full ") })
}

fn window(fields: &str) -> Option<Window> {
    let field = |name: &str| fields.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    let percent = |name| field(name)?.parse().ok();
    // The kernel counts microseconds.
    let total: u64 = field("total")?.parse().ok()?;
    Some(Window {
        total_ns: total.saturating_mul(1000),
        avg10: percent("avg10")?,
        avg60: percent("avg60")?,
        avg300: percent("avg300")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_read() {
        let text =
            "some avg10=1.50 avg60=0.25 avg300=0.07 total=20305350\nfull avg10=0.00 avg60=0.00 avg300=0.01 total=9\n";
        let stall = parse(text).expect("pressure");
        let some = Window { total_ns: 20_305_350_000, avg10: 1.5, avg60: 0.25, avg300: 0.07 };
        let full = Window { total_ns: 9000, avg10: 0.0, avg60: 0.0, avg300: 0.01 };
        assert_eq!(stall, Stall { some, full: Some(full) });
        let old = parse("some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n").expect("pressure");
        assert_eq!(old.full, None);
        for bad in ["", "full avg10=0.00 avg60=0.00 avg300=0.00 total=1\n", "some total=x\n", "some total=1\n"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
